# Included by llama.cpp's own project() (CMAKE_PROJECT_INCLUDE) when tools/setup.sh builds it. Templates, JSON schemas and command
# lines are not where time goes at run time, but are where it goes when compiling: these targets get -O1.
if(PROJECT_NAME STREQUAL "llama.cpp")
  function(bough_quick_targets)
    foreach(target cpp-httplib llama-common llama-quantize-impl llama-bench-impl)
      if(TARGET ${target})
        target_compile_options(${target} PRIVATE -O1)
      endif()
    endforeach()
  endfunction()
  cmake_language(DEFER CALL bough_quick_targets)
endif()
