# Warnings and sanitizers of Bough's own targets; ccache where there is one.

if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(BOUGH_CCACHE ccache)
  if(BOUGH_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER "${BOUGH_CCACHE}")
    set(CMAKE_CXX_COMPILER_LAUNCHER "${BOUGH_CCACHE}")
  endif()
endif()

add_library(bough_options INTERFACE)
# Designated initializers leave the other members at their defaults on purpose; -Wrestrict has false positives for std::string in g++ 12.
target_compile_options(bough_options INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall> $<$<COMPILE_LANGUAGE:C,CXX>:-Wextra> $<$<COMPILE_LANGUAGE:C,CXX>:-Wno-missing-field-initializers>
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wno-restrict>)
if(BOUGH_WERROR)
  target_compile_options(bough_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()
if(BOUGH_SANITIZE)
  set(bough_sanitize -fsanitize=${BOUGH_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(bough_options INTERFACE ${bough_sanitize})
  target_link_options(bough_options INTERFACE ${bough_sanitize})
  # -Wmaybe-uninitialized and its like report false positives in instrumented code.
  target_compile_options(bough_options INTERFACE -Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow)
endif()
