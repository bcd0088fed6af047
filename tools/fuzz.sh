#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS (60), as many side by side as there are processors; exit status 1 when one finds a
# crash, a leak, a hang or a broken property. tests/fuzz/corpus holds the inputs to start from, build/fuzz/found what a run adds.
#   fuzz.sh [SECONDS]     fuzz.sh --keep: adds to tests/fuzz/corpus what earlier runs found and what reaches new code
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
[[ "$seconds" == --keep || "$seconds" =~ ^[0-9]+$ ]] || { echo "SECONDS is $seconds, it must be a number" >&2; exit 1; }
command -v clang++ >/dev/null || { echo "clang++ is missing; run tools/setup.sh" >&2; exit 1; }
cmake -S tests/fuzz -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None >build/fuzz.log 2>&1 ||
  { cat build/fuzz.log >&2; exit 1; }
cmake --build build/fuzz -j "${JOBS:-$(nproc)}"

run_target() {
  local target="$1" name="${1%_fuzz}" options=(-max_len=65536 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0)
  mkdir -p "build/fuzz/found/$name" "build/fuzz/crashes/$name"
  [[ -f "tests/fuzz/$name.dict" ]] && options+=("-dict=tests/fuzz/$name.dict")
  if [[ "$2" == --keep ]]; then
    "build/fuzz/$target" -merge=1 "tests/fuzz/corpus/$name" "build/fuzz/found/$name"
    return
  fi
  # The child process that renders a template reports its own leaks to nobody; its exit status is what counts.
  if "build/fuzz/$target" "${options[@]}" -max_total_time="$2" -artifact_prefix="build/fuzz/crashes/$name/" \
    "build/fuzz/found/$name" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
    echo "$target: $(grep -oE 'number_of_executed_units: *[0-9]+' "build/fuzz/$name.log" | grep -oE '[0-9]+$') inputs, nothing found"
  else
    echo "$target: found something; the input is in build/fuzz/crashes/$name"
    tail -n 40 "build/fuzz/$name.log"
    return 1
  fi
}
export -f run_target

printf '%s\n' tests/fuzz/*_fuzz.cc | xargs -n1 basename -s .cc | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'run_target "$1" "$2"' _ {} "$seconds"
