--- The error of a call that must fail, in one line, without the place in a program, which is never
-- the library's.
local assert = require "luassert"

--- @tparam function f
-- @param ... its arguments
-- @treturn string the message
return function(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "the call succeeded")
  assert.is_nil(message:find("\n", 1, true))
  assert.is_nil(message:find "^[^:]*lua/octet/[^:]*%.lua:%d+: ")
  return (message:gsub("^[^:]*%.lua:%d+: ", ""))
end
