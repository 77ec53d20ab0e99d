# find_package(fathom): the target fathom::fathom, with everything that its libraries stand on.
include(CMakeFindDependencyMacro)
list(PREPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})  # FindOneDNN.cmake
foreach(dependency OpenMP Threads fmt spdlog nlohmann_json yaml-cpp hwy OneDNN PkgConfig ZLIB)
  find_dependency(${dependency})
endforeach()
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
list(POP_FRONT CMAKE_MODULE_PATH)
include(${CMAKE_CURRENT_LIST_DIR}/fathomTargets.cmake)
