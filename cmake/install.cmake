# fathom::fathom for other CMake projects: `cmake --install build/release --prefix P`, then find_package(fathom) with CMAKE_PREFIX_PATH=P.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

get_property(libraries GLOBAL PROPERTY FATHOM_LIBRARIES)
list(REMOVE_ITEM libraries fathom_testing)
add_library(fathom_everything INTERFACE)
set_target_properties(fathom_everything PROPERTIES EXPORT_NAME fathom)
target_link_libraries(fathom_everything INTERFACE ${libraries})
target_compile_features(fathom_everything INTERFACE cxx_std_20)
add_library(fathom::fathom ALIAS fathom_everything)  # the same name for a project that has fathom as a subdirectory

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fathom)
install(TARGETS fathom RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET fathom_mpi)
  install(TARGETS fathom_mpi LIBRARY DESTINATION lib)  # where the program looks, beside its own folder
endif()
install(TARGETS fathom_everything ${libraries} EXPORT fathomTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/fathom DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h"
        PATTERN testing EXCLUDE PATTERN "*-inl.h" EXCLUDE REGEX "/kernels/[^/]*/[^/]*_ref\\.h$" EXCLUDE)
install(EXPORT fathomTargets NAMESPACE fathom:: DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fathomConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/fathomConfig.cmake ${PROJECT_SOURCE_DIR}/cmake/FindOneDNN.cmake
              ${PROJECT_BINARY_DIR}/fathomConfigVersion.cmake DESTINATION ${package_dir})
