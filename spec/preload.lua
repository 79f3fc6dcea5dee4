-- Loads the binding once, before any spec: busted isolates package.loaded between files, and a
-- second ffi.cdef or metatype of the same names would be refused.
require "octet.tensor"
