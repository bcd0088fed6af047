#!/usr/bin/env bash
# Runs test stages one after the other and ends with one line: N passed, M failed. Exit status 1 when anything failed.
#   run_tests.sh STAGE...   stages: release, asan, tsan, debug (build with that preset, then ctest); format; size; fuzz (every target for a
#   minute); cuda (build with that preset, and ctest where there is a GPU; nothing where there is no CUDA compiler)
# GoogleTest cases are counted one by one; a program that fails to build, crashes or reports nothing counts as one failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs="${JOBS:-$(nproc)}"
passed=0
failed=0
report=()

# add NAME PASSED FAILED SECONDS
add() {
  passed=$((passed + $2))
  failed=$((failed + $3))
  report+=("$(printf '%-8s %5d passed %4d failed %5d s' "$@")")
}

check_stage() {
  local name="$1" start=$SECONDS
  shift
  echo "== $name"
  if "$@"; then add "$name" 1 0 $((SECONDS - start)); else add "$name" 0 1 $((SECONDS - start)); fi
}

build_preset() {
  local log="build/$1.configure.log"
  mkdir -p build
  cmake --preset "$1" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
  cmake --build --preset "$1" -j "$jobs"
}

preset_stage() {
  local preset="$1" start=$SECONDS counts ok bad
  echo "== $preset: build"
  if ! build_preset "$preset"; then
    add "$preset" 0 1 $((SECONDS - start))
    return
  fi
  echo "== $preset: test"
  rm -rf "build/$preset/results"
  mkdir -p "build/$preset/results"
  ctest --preset "$preset" -j "$jobs" --output-junit "$PWD/build/$preset/results/ctest.xml"
  counts=$(python3 tools/count_tests.py "build/$preset/results") || counts="0 1"
  read -r ok bad <<<"$counts"
  add "$preset" "$ok" "$bad" $((SECONDS - start))
}

cuda_stage() {
  if ! PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin" command -v nvcc >/dev/null; then
    echo "== cuda: skipped, no nvcc here"
  elif [[ -e /dev/nvidiactl ]]; then
    preset_stage cuda
  else
    check_stage cuda build_preset cuda
    echo "CUDA sources were compiled; their tests need a GPU"
  fi
}

for stage in "$@"; do
  case "$stage" in
    release | debug | asan | tsan) preset_stage "$stage" ;;
    format) check_stage format tools/format.sh --check ;;
    size) check_stage size tools/lint.sh ;;
    cuda) cuda_stage ;;
    fuzz) check_stage fuzz tools/fuzz.sh 60 ;;
    *) echo "unknown stage $stage; known: release, debug, asan, tsan, format, size, fuzz, cuda" >&2; exit 1 ;;
  esac
done

printf '%s\n' "${report[@]}"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
