#!/usr/bin/env bash
# Shows what Bough is for: a model trained to read 8,192 tokens reads 131,072 of them and finds a number hidden in the middle.
# Then the same model reads 16,384 tokens with ordinary dense attention, as every engine does by default. `make demo` builds what
# this needs. DEMO_TOKENS (131072) and DEMO_DENSE_TOKENS (16384) shorten it. Exit status 1 when the pruned answer is wrong.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

work="$root/build/demo"
find_bough
mkdir -p "$work"

# read_and_ask PLAN TOKENS: the answer, in $answer; speed and memory go to the terminal as the program prints them.
read_and_ask() {
  local file="$work/text-$2.txt"
  "$bough" tokenize --head $(($2 - room_to_ask)) -f "$work/book.txt" | text_with_key >"$file"
  say "plan $1 reads $("$bough" tokenize --count -f "$file") tokens with \"The pass key is $pass_key\" in the middle"
  answer=$("$bough" ask --no-session --raw --plan "$1" --max-tokens 8 "$file" "$pass_key_question")
  answer=${answer//$'\n'/ }
  echo "      The pass key is ${answer}"
}

if [[ ! -s "$work/book.txt" ]]; then
  "$root/tools/book.sh" >"$work/book.tmp"
  mv "$work/book.tmp" "$work/book.txt"
fi

answer=
read_and_ask default "${DEMO_TOKENS:-131072}"
found=no
if [[ "$answer" == *"$pass_key"* ]]; then found=yes; fi
say "pruned attention $([[ $found == yes ]] && echo "found the pass key" || echo "did NOT find the pass key")"
echo

read_and_ask dense "${DEMO_DENSE_TOKENS:-16384}"
if [[ "$answer" == *"$pass_key"* ]]; then
  say "dense attention found the pass key too"
else
  say "dense attention, past the 8,192 tokens that the model was trained on, did not"
fi
[[ $found == yes ]]
