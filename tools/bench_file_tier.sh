#!/usr/bin/env bash
# What a KV cache costs that lies in its session file: bench_file_tier.sh [TOKENS, 65536 by default] [GB, 0.3] [GB of all memory]. The
# same text is read and asked about with its cache in memory and with --kv-memory GB; with a third number also in a control group of so
# much memory (made by root under /sys/fs/cgroup, else through systemd-run), where the file's pages too must come and go. Each line has the seconds of reading, of the
# first answer, and of a second question from the start of the program to its end, with the file in the page cache and without. The
# answers must be the same.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

tokens="${1:-65536}"
little="${2:-0.3}"
group="${3:-}"
find_bough
new_temporary "${TMPDIR:-/tmp}"
head_of_book "$tokens" >"$temporary/text.txt"

# Drops the session's pages from the page cache: the second question then waits for the device.
drop_pages() {
  python3 - "$1"/sessions/*.session <<'PY'
import os, sys
for path in sys.argv[1:]:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
PY
}

# measure NAME WORDS: one line. WORDS run before the program's name, up to "--"; its options follow.
measure() {
  local name=$1 before=() cache="$temporary/$1" seconds=() question start
  shift
  while [[ "$1" != -- ]]; do
    before+=("$1")
    shift
  done
  shift
  mkdir -p "$cache"
  for question in first warm cold; do
    [[ "$question" != cold ]] || drop_pages "$cache"
    start=$EPOCHREALTIME
    BOUGH_CACHE="$cache" "${before[@]}" "$bough" ask -m "$model_path" -n 64 --json "$@" "$temporary/text.txt" \
      "$([[ "$question" == first ]] && echo "Who is this text about?" || echo "What happens on the first day?")" \
      2>/dev/null | tail -n 1 >"$temporary/$name.$question"
    seconds+=("$(python3 -c "print($EPOCHREALTIME - $start)")")
  done
  python3 - "$name" "$temporary/$name" "${seconds[@]:1}" <<'PY'
import json, sys
name, path, warm, cold = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
first = json.load(open(path + ".first"))
share = 100 * first["cache_memory_bytes"] / first["cache_bytes"]
print(f"{name:<8} {first['read_seconds']:>10.1f} {first['answer_seconds']:>8.2f} {warm:>12.2f} {cold:>12.2f} "
      f"{first['cache_bytes'] / 1e9:>9.2f} {share:>10.0f}%")
PY
  for question in first warm cold; do
    python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['answer'])" "$temporary/$name.$question"
  done >"$temporary/$name.answers"
  rm -r "${cache:?}/sessions"
}

printf '%-8s %10s %8s %12s %12s %9s %11s\n' cache "reading s" "answer s" "second warm" "second cold" "cache GB" "in memory"
measure memory --
measure file -- --kv-memory "$little"
# A control group of $1 GB: its folder, empty where this user may make none.
make_group() {
  local limit parent folder
  limit=$(python3 -c "print(int($1 * 1e9))")
  for parent in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    folder="$parent/bough-bench-$$"
    mkdir "$folder" 2>/dev/null || continue
    if { echo "$limit" >"$folder/memory.limit_in_bytes" || echo "$limit" >"$folder/memory.max"; } 2>/dev/null; then
      echo "$folder"
      return
    fi
    rmdir "$folder"
  done
}
if [[ -n "$group" ]]; then
  folder=$(make_group "$group")
  if [[ -n "$folder" ]]; then
    measure group bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$folder" -- --kv-memory "$little"
    rmdir "$folder"
  else
    measure group systemd-run --user --scope --quiet -p MemoryMax="${group}G" -p MemorySwapMax=0 -- --kv-memory "$little"
  fi
fi
for answers in "$temporary"/*.answers; do
  cmp -s "$answers" "$temporary/memory.answers" || fail "the answers differ: $(basename "$answers" .answers) and memory"
done
say "the answers are the same"
