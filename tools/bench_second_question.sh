#!/usr/bin/env bash
# Times a second question on a text that was read before: bench_second_question.sh [TOKENS, 131072 by default] [TRIALS, 3]. The text is
# read once (about 8 minutes on two cores for 131,072 tokens) into a session of a folder that goes away. Each line has the wall-clock
# time of the whole program `bough ask ... -n 1`, from its start to the first token of the answer and its end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

tokens="${1:-131072}"
trials="${2:-3}"
bough="$root/build/release/bin/bough"
[[ -x "$bough" ]] || fail "$bough is not built; run make"
[[ -f "$model_path" ]] || fail "the model is not in $model_path; run tools/setup.sh first"
new_temporary "${TMPDIR:-/tmp}"
"$root/tools/book.sh" >"$temporary/book.txt"
"$bough" tokenize --head "$tokens" -f "$temporary/book.txt" >"$temporary/text.txt"

# ask QUESTION: seconds from start to end, in $seconds.
ask() {
  local start=$EPOCHREALTIME
  BOUGH_CACHE="$temporary" "$bough" ask -m "$model_path" -n 1 "$temporary/text.txt" "$1"
  seconds=$(python3 -c "print(f'{$EPOCHREALTIME - $start:.2f}')")
}

seconds=
ask "Who is this text about?"
say "first question, $tokens tokens: $seconds s"
for ((trial = 1; trial <= trials; ++trial)); do
  ask "What happens on the first day?"
  say "second question, trial $trial of $trials: $seconds s"
done
BOUGH_CACHE="$temporary" "$bough" sessions list
