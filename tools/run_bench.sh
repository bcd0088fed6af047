#!/usr/bin/env bash
# Runs every benchmark of the release build: the programs of bench/ and `bough bench` on the default model. Their tables go to the
# terminal and to build/bench-results/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=build/release/bin
out=build/bench-results
mkdir -p "$out"
for program in "$bin"/*_bench; do
  [[ -x "$program" ]] || continue
  echo "== $(basename "$program")"
  "$program" | tee "$out/$(basename "$program").txt"
done
if [[ -x "$bin/bough" ]]; then
  echo "== bough bench"
  "$bin/bough" bench --what all | tee "$out/bough_bench.txt"
fi
