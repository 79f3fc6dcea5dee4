# The plug-in of kernels/cuda: liboctet-cuda.so by nvcc, and liboctet-cuda-emu.so, the same source
# compiled for the processor by a C++ compiler (kernels/cuda/emulation.hpp). Either lies beside
# liboctet.so, which opens it when it is asked for.
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS kernels/cuda/*.cu)

function(add_plugin name)
  add_library(${name} MODULE ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
  set_target_properties(${name} PROPERTIES
    CXX_STANDARD 17 CXX_VISIBILITY_PRESET hidden CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden)
  target_link_options(${name} PRIVATE -Wl,-z,nodelete)
  install(TARGETS ${name} LIBRARY DESTINATION lib)
endfunction()

if(OCTET_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
  enable_language(CUDA)
  add_plugin(octet-cuda ${CUDA_SOURCES})
  target_compile_definitions(octet-cuda PRIVATE _GNU_SOURCE OCT_VERSION="${PROJECT_VERSION}")
  # As the kernels on a processor compute: nothing contracted, division and root rounded correctly,
  # and numbers below 2^-126 count as zero (core/machine.c).
  target_compile_options(octet-cuda PRIVATE -fmad=false -prec-div=true -prec-sqrt=true -ftz=true
    $<$<BOOL:${OCTET_WERROR}>:-Werror=all-warnings>)
endif()

if(OCTET_CUDA_EMU)
  enable_language(CXX)
  set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
  # A file of another name for each, since a source has one language within a folder.
  set(emulated "")
  foreach(source IN LISTS CUDA_SOURCES)
    get_filename_component(stem ${source} NAME_WE)
    set(copy ${PROJECT_BINARY_DIR}/generated/${stem}_emulated.cpp)
    file(CONFIGURE OUTPUT ${copy} CONTENT "#include \"${source}\"\n")
    list(APPEND emulated ${copy})
  endforeach()
  add_plugin(octet-cuda-emu ${emulated} kernels/cuda/emulation.cpp)
  target_compile_options(octet-cuda-emu PRIVATE -mavx2 -mfma)
  target_link_libraries(octet-cuda-emu PRIVATE octet_settings)
endif()
