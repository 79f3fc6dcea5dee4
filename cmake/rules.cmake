# Write OUTPUT, the list of all rules of optimizers: the files of kernels/rules, and those that
# OCTET_RULES names besides (kernels/rules.h says what a rule is).
function(write_rules_list OUTPUT)
  file(GLOB FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/rules/*.h)
  set(includes "")
  set(names "")
  foreach(file IN LISTS FILES OCTET_RULES)
    if(NOT EXISTS ${file})
      message(FATAL_ERROR "OCTET_RULES: ${file} does not exist")
    endif()
    get_filename_component(name ${file} NAME_WE)
    string(APPEND includes "#include \"${file}\"\n")
    string(APPEND names " X(${name})")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT
"/* Written by cmake/rules.cmake. */
#ifndef OCT_RULES_LIST_H
#define OCT_RULES_LIST_H
#include \"kernels/rules.h\"

@includes@
#define OCT_FOR_EACH_RULE(X)@names@
#define OCT_RULE_NUMBER(name) OCT_RULE_##name,
enum oct_arithmetic { OCT_FOR_EACH_RULE(OCT_RULE_NUMBER) OCT_ARITHMETICS };
#endif
")
endfunction()
