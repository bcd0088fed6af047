#!/usr/bin/env bash
# Times reading and a second question: bench_second_question.sh [TOKENS, 131072 by default; the book has 990597] [TRIALS, 3] [OPTIONS of
# bough ask, such as --kv int8]. The head of the book with a pass key in its middle is read once (about 5 minutes on two cores for
# 131,072 tokens) into a session of a folder that goes away, in $TMPDIR, and the key is asked for. Then each trial has the wall-clock time
# from the start of the program `bough ask` to the first byte of its answer to another question, and to its end after at most 16 tokens.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

tokens="${1:-131072}"
trials="${2:-3}"
options=("${@:3}")
find_bough
[[ "$tokens" =~ ^[0-9]+$ ]] && ((tokens >= 2 * room_to_ask)) || fail "TOKENS is $tokens, it must be a number of at least $((2 * room_to_ask))"
new_temporary "${TMPDIR:-/tmp}"
head_of_book $((tokens - room_to_ask)) | text_with_key >"$temporary/text.txt"

# ask QUESTION: the answer goes to $temporary/answer; seconds from the start to the first byte and to the end, in $seconds.
ask() {
  local start=$EPOCHREALTIME
  BOUGH_CACHE="$temporary" "$bough" ask -m "$model_path" --raw -n 16 --session-budget 100 "${options[@]}" "$temporary/text.txt" "$1" | {
    IFS= read -r -n 1 first || true
    echo "$EPOCHREALTIME" >"$temporary/first"
    { echo -n "$first"; cat; } | tr '\n' ' ' >"$temporary/answer"
  }
  seconds=$(python3 -c "print(f'{$(<"$temporary/first") - $start:.2f} s to the first byte, {$EPOCHREALTIME - $start:.2f} s to the end')")
}

seconds=
ask "$pass_key_question"
found=$(grep -q "$pass_key" "$temporary/answer" && echo right || echo wrong)
say "first question, $tokens tokens: $seconds; the pass key is $pass_key, the answer \"$(<"$temporary/answer")\" is $found"
for ((trial = 1; trial <= trials; ++trial)); do
  ask $'\n\nWhat happens on the first day? '
  say "second question, trial $trial of $trials: $seconds"
done
BOUGH_CACHE="$temporary" "$bough" sessions list
