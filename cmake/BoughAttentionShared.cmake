# libbough_attention.so: the attention library behind the C ABI of include/bough/attention_c.h, for languages that load a library.
option(BOUGH_PORTABLE "Programs carry the libraries that a bare machine lacks" OFF)
set(BOUGH_PYTHON_FOLDER "bough" CACHE STRING "Where the Python package's library is installed")

set(bough_attention_map "${PROJECT_SOURCE_DIR}/cmake/bough_attention.map")
file(GLOB bough_attention_c_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/c_attention/*.cc")

add_library(bough_attention_shared SHARED ${bough_attention_c_sources})
set_target_properties(bough_attention_shared PROPERTIES
  OUTPUT_NAME bough_attention LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib" LINK_DEPENDS "${bough_attention_map}"
  CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
target_link_libraries(bough_attention_shared PRIVATE bough_attention bough_options)
if(BOUGH_CUDA)
  target_link_libraries(bough_attention_shared PRIVATE bough_cuda)
  target_compile_definitions(bough_attention_shared PRIVATE BOUGH_HAS_CUDA=1)
endif()
target_link_options(bough_attention_shared PRIVATE
  "-Wl,--version-script=${bough_attention_map}" -Wl,--no-undefined -Wl,--gc-sections -static-libstdc++ -static-libgcc)

install(TARGETS bough_attention_shared LIBRARY DESTINATION "${BOUGH_PYTHON_FOLDER}" COMPONENT python)

# What a bare machine lacks lies beside the library.
if(BOUGH_PORTABLE)
  set_target_properties(bough_attention_shared PROPERTIES
    BUILD_RPATH "$ORIGIN" BUILD_RPATH_USE_ORIGIN ON INSTALL_RPATH "$ORIGIN" SKIP_BUILD_RPATH OFF)
  target_link_options(bough_attention_shared PRIVATE -Wl,--disable-new-dtags)
  foreach(library hwy gomp xxhash)
    find_file(BOUGH_SO_${library} NAMES lib${library}.so.1 lib${library}.so.0 PATHS /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu)
    add_custom_command(TARGET bough_attention_shared POST_BUILD
      COMMAND ${CMAKE_COMMAND} -E copy_if_different "${BOUGH_SO_${library}}" "$<TARGET_FILE_DIR:bough_attention_shared>")
    file(REAL_PATH "${BOUGH_SO_${library}}" real)
    get_filename_component(name "${BOUGH_SO_${library}}" NAME)
    install(FILES "${real}" RENAME "${name}" DESTINATION "${BOUGH_PYTHON_FOLDER}" COMPONENT python)
  endforeach()
endif()
