#!/usr/bin/env bash
# Prefill of the default model by llama.cpp and by Bough on the same file, one after the other on this machine, and the ratio.
#   bench_rival.sh [TOKENS]   (32768; llama.cpp needs minutes for it: its attention is quadratic)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

tokens=${1:-32768}
[[ "$tokens" =~ ^[0-9]+$ ]] || fail "TOKENS is $tokens, it must be a number"
bough="$root/build/release/bin/bough"
llama_bench="$("$root/tools/setup.sh" --print-llama-dir)/build/bin/llama-bench"
[[ -x "$bough" && -x "$llama_bench" ]] || fail "$bough or $llama_bench is missing; run make build"

# Milliseconds of the one JSON object on standard input.
rival_ms=$("$llama_bench" -m "$model_path" -t "$(nproc)" -fa 1 -p "$tokens" -n 0 -r 1 --no-warmup -o json |
  python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["avg_ns"] / 1e6)')
own_ms=$("$bough" bench --what prefill --lengths "$tokens" --json -m "$model_path" |
  python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["ms"])')
python3 - "$tokens" "$rival_ms" "$own_ms" <<'PYTHON'
import sys

tokens, rival, own = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
print(f"prefill of {tokens:,} tokens: llama.cpp {rival / 1000:.1f} s, bough (default) {own / 1000:.1f} s, {rival / own:.1f} times as fast")
PYTHON
