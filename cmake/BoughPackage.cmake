# libbough.so with the C ABI and the C++ API of include/bough, its headers, a CMake package and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(bough_abi 1)  # BOUGH_ABI_VERSION of include/bough/c.h
set(bough_map "${PROJECT_SOURCE_DIR}/cmake/bough.map")

add_library(bough_shared SHARED $<TARGET_OBJECTS:bough> $<TARGET_OBJECTS:bough_attention>)
set_target_properties(bough_shared PROPERTIES
  OUTPUT_NAME bough EXPORT_NAME bough VERSION "${PROJECT_VERSION}" SOVERSION "${bough_abi}" LINK_DEPENDS "${bough_map}"
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
target_include_directories(bough_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(bough_shared INTERFACE cxx_std_20)
target_link_libraries(bough_shared PRIVATE $<TARGET_PROPERTY:bough,LINK_LIBRARIES> $<TARGET_PROPERTY:bough_attention,LINK_LIBRARIES>)
target_link_options(bough_shared PRIVATE "-Wl,--version-script=${bough_map}" -Wl,--no-undefined -Wl,--gc-sections)

file(RELATIVE_PATH BOUGH_PC_TO_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" BOUGH_PC_TO_PREFIX "${BOUGH_PC_TO_PREFIX}")
set(bough_package "${CMAKE_INSTALL_LIBDIR}/cmake/bough")
configure_file(cmake/bough.pc.in "${CMAKE_BINARY_DIR}/package/bough.pc" @ONLY)
configure_package_config_file(cmake/boughConfig.cmake.in "${CMAKE_BINARY_DIR}/package/boughConfig.cmake"
  INSTALL_DESTINATION "${bough_package}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/package/boughConfigVersion.cmake" COMPATIBILITY SameMinorVersion)

install(TARGETS bough_shared EXPORT boughTargets LIBRARY COMPONENT library)
install(DIRECTORY include/bough TYPE INCLUDE COMPONENT library FILES_MATCHING PATTERN "*.h")
install(EXPORT boughTargets NAMESPACE bough:: DESTINATION "${bough_package}" COMPONENT library)
install(FILES "${CMAKE_BINARY_DIR}/package/boughConfig.cmake" "${CMAKE_BINARY_DIR}/package/boughConfigVersion.cmake"
  DESTINATION "${bough_package}" COMPONENT library)
install(FILES "${CMAKE_BINARY_DIR}/package/bough.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT library)
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT library)
if(TARGET bough_cli)
  install(TARGETS bough_cli RUNTIME COMPONENT program)
endif()
