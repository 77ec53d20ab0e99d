# Helpers of the build: one static library per folder, one test program per *_test.cc, one kernel = four files.

# fathom_library(base SOURCES a.cc b.cc DEPS tensor fmt::fmt)  ->  target fathom_base
function(fathom_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(fathom_${name} STATIC ${ARG_SOURCES})
  target_include_directories(fathom_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include>)
  target_link_libraries(fathom_${name} PUBLIC ${ARG_DEPS} PRIVATE $<BUILD_INTERFACE:fathom_options>)
  set_property(GLOBAL APPEND PROPERTY FATHOM_LIBRARIES fathom_${name})
endfunction()

# fathom_test(rms_norm_test.cc LABELS unit grad DEPS fathom_kernels)  ->  program and ctest entry rms_norm_test
function(fathom_test source)
  if(NOT FATHOM_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "LABELS;DEPS" ${ARGN})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} fathom_options GTest::gtest GTest::gtest_main)
  # What is tested is checked for undefined behaviour, tests are not: it doubles the time that they take to compile.
  if(FATHOM_SANITIZE)
    target_compile_options(${name} PRIVATE -fno-sanitize=undefined)
  endif()
  target_compile_definitions(${name} PRIVATE FATHOM_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  add_test(NAME ${name} COMMAND ${name})
  # Threads that wait without spinning: tests run side by side, and on a busy machine spinning takes a hundred times as long.
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600 ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()

# In fathom/kernels: fathom_kernel(norm/rms_norm [DEPS lib ...]) takes rms_norm.h/.cc/_ref.h/_test.cc in that room; a missing one is an error.
function(fathom_kernel name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  foreach(file ${name}.h ${name}.cc ${name}_ref.h ${name}_test.cc)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "kernel ${name}: ${file} is missing")
    endif()
  endforeach()
  target_sources(fathom_kernels PRIVATE ${name}.cc)
  target_link_libraries(fathom_kernels PUBLIC ${ARG_DEPS})
  fathom_test(${name}_test.cc LABELS unit grad DEPS fathom_kernels fathom_testing)
endfunction()
