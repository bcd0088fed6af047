#!/usr/bin/env bash
# Times a second question on a text that was read before: bench_second_question.sh [TOKENS, 131072 by default] [TRIALS, 3] [OPTIONS of
# bough ask, such as --kv int8]. The text, the head of a book of 990,597 tokens, is read once (about 8 minutes on two cores for 131,072
# tokens) into a session of a folder that goes away, in $TMPDIR. Each line has the wall-clock time from the start of the program
# `bough ask` to the first byte of its answer, and to its end after at most 16 tokens.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

tokens="${1:-131072}"
trials="${2:-3}"
options=("${@:3}")
find_bough
new_temporary "${TMPDIR:-/tmp}"
head_of_book "$tokens" >"$temporary/text.txt"

# ask QUESTION: seconds from the start to the first byte and to the end, in $seconds.
ask() {
  local start=$EPOCHREALTIME
  BOUGH_CACHE="$temporary" "$bough" ask -m "$model_path" -n 16 --session-budget 100 "${options[@]}" "$temporary/text.txt" "$1" | {
    IFS= read -r -n 1 || true
    echo "$EPOCHREALTIME" >"$temporary/first"
    cat >/dev/null
  }
  seconds=$(python3 -c "print(f'{$(<"$temporary/first") - $start:.2f} s to the first byte, {$EPOCHREALTIME - $start:.2f} s to the end')")
}

seconds=
ask "Who is this text about?"
say "first question, $tokens tokens: $seconds"
for ((trial = 1; trial <= trials; ++trial)); do
  ask "What happens on the first day?"
  say "second question, trial $trial of $trials: $seconds"
done
BOUGH_CACHE="$temporary" "$bough" sessions list
