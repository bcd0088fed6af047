# llama.cpp as tools/setup.sh has built it in the cache. Targets: LlamaCpp::ggml, LlamaCpp::llama, LlamaCpp::common. LLAMACPP_DIR is
# the folder with src/ and build/.

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/tools/setup.sh" "${PROJECT_SOURCE_DIR}/tools/deps.sh" "${PROJECT_SOURCE_DIR}/cmake/llama_build.cmake")

if(BOUGH_LLAMA_CPP)
  set(ENV{BOUGH_LLAMA_CPP} "${BOUGH_LLAMA_CPP}")
endif()
foreach(pair "llama-dir;LLAMACPP_DIR" "model;BOUGH_MODEL" "model-f32;BOUGH_MODEL_F32")
  list(GET pair 0 what)
  list(GET pair 1 variable)
  execute_process(COMMAND "${PROJECT_SOURCE_DIR}/tools/setup.sh" --print-${what}
    OUTPUT_VARIABLE ${variable} OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endforeach()

if(NOT EXISTS "${LLAMACPP_DIR}/done")
  message(FATAL_ERROR "llama.cpp is not built in ${LLAMACPP_DIR}: run tools/setup.sh first")
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)

function(bough_llama_library name path)
  if(NOT EXISTS "${LLAMACPP_DIR}/build/${path}")
    message(FATAL_ERROR "${LLAMACPP_DIR}/build/${path} is missing: remove ${LLAMACPP_DIR} and run tools/setup.sh again")
  endif()
  add_library(LlamaCpp::${name} STATIC IMPORTED)
  set_target_properties(LlamaCpp::${name} PROPERTIES
    IMPORTED_LOCATION "${LLAMACPP_DIR}/build/${path}" INTERFACE_LINK_LIBRARIES "${ARGN}")
endfunction()

bough_llama_library(ggml-base ggml/src/libggml-base.a OpenMP::OpenMP_CXX Threads::Threads ${CMAKE_DL_LIBS} m)
bough_llama_library(ggml-cpu ggml/src/libggml-cpu.a LlamaCpp::ggml-base OpenMP::OpenMP_CXX)
bough_llama_library(ggml ggml/src/libggml.a LlamaCpp::ggml-cpu LlamaCpp::ggml-base)
bough_llama_library(llama src/libllama.a LlamaCpp::ggml)
bough_llama_library(httplib vendor/cpp-httplib/libcpp-httplib.a Threads::Threads)
bough_llama_library(common-base common/libllama-common-base.a)
bough_llama_library(common common/libllama-common.a LlamaCpp::common-base LlamaCpp::httplib LlamaCpp::llama)
target_include_directories(LlamaCpp::ggml-base INTERFACE "${LLAMACPP_DIR}/src/ggml/include")
target_include_directories(LlamaCpp::llama INTERFACE "${LLAMACPP_DIR}/src/include")
target_include_directories(LlamaCpp::common INTERFACE "${LLAMACPP_DIR}/src/common")

set(LlamaCpp_FOUND TRUE)
