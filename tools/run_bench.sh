#!/usr/bin/env bash
# Runs every benchmark of the release build: the programs of bench/, then Bough and other engines on the default model side by side
# (tools/bench_rival.py, which gets this script's options; --long with LONG=1). Tables go to the terminal and to build/bench-results/.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

bin="$root/build/release/bin"
out="$root/build/bench-results"
mkdir -p "$out"
for program in "$bin"/*_bench; do
  [[ -x "$program" ]] || continue
  echo "== $(basename "$program")"
  "$program" | tee "$out/$(basename "$program").txt"
done
echo "== bough and other engines"
find_bough
[[ -z "${LONG:-}" ]] || set -- --long "$@"
python3 "$root/tools/bench_rival.py" --bough "$bough" --llama-decode "$bin/llama_decode" --model "$model_path" \
  --llama "$("$root/tools/setup.sh" --print-llama-dir)/build/bin" "$@" |
  tee "$out/bough_bench.txt"
