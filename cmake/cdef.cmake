# Cut the region between cdef-begin and cdef-end out of HEADER and write it to OUTPUT as a C array.
file(READ ${HEADER} text)
string(REGEX REPLACE ".*// cdef-begin\n" "" text "${text}")
string(REGEX REPLACE "// cdef-end.*" "" text "${text}")
string(HEX "${text}" hex)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
file(WRITE ${OUTPUT} "#include \"core/octet.h\"\n\nstatic const char text[] = {${bytes}0};\n\n"
  "const char *oct_cdef(void)\n{\n    return text;\n}\n")
