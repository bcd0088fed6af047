#!/usr/bin/env bash
# Shows what Bough is for: a model trained to read 8,192 tokens reads 131,072 of them and finds a number hidden in the middle.
# Then the same model reads 16,384 tokens with ordinary dense attention, as every engine does by default. `make demo` builds what
# this needs. DEMO_TOKENS (131072) and DEMO_DENSE_TOKENS (16384) shorten it. Exit status 1 when the pruned answer is wrong.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

bough="$root/build/release/bin/bough"
work="$root/build/demo"
key=71492
# The space at the end is a token of its own: SmolLM2 writes numbers digit by digit after it.
question=$'\n\nWhat is the pass key? The pass key is '

[[ -x "$bough" ]] || fail "$bough is not built; run make demo"
[[ -f "$model_path" ]] || fail "the model is not in $model_path; run tools/setup.sh first"
mkdir -p "$work"

# make_text TOKENS FILE: the first TOKENS tokens of the King James Bible, less room for the question, with the key in the middle.
make_text() {
  "$bough" tokenize --head $(($1 - 128)) -f "$work/book.txt" >"$work/head.txt"
  python3 - "$work/head.txt" "$2" "$key" <<'PYTHON'
import pathlib
import sys

text = pathlib.Path(sys.argv[1]).read_text(errors="ignore")
key = sys.argv[3]
middle = text.index(". ", len(text) // 2) + 1
prefix = "There is an important pass key hidden inside a lot of text. Find it and memorize it. I will quiz you about it.\n\n"
needle = f" The pass key is {key}. Remember it. {key} is the pass key."
pathlib.Path(sys.argv[2]).write_text(prefix + text[:middle] + needle + text[middle:])
PYTHON
}

# read_and_ask PLAN TOKENS: the answer, in $answer; speed and memory go to the terminal as the program prints them.
read_and_ask() {
  local file="$work/text-$2.txt"
  make_text "$2" "$file"
  say "plan $1 reads $("$bough" tokenize --count -f "$file") tokens with \"The pass key is $key\" in the middle"
  answer=$("$bough" ask --no-session --raw --plan "$1" --max-tokens 8 "$file" "$question")
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
if [[ "$answer" == *"$key"* ]]; then found=yes; fi
say "pruned attention $([[ $found == yes ]] && echo "found the pass key" || echo "did NOT find the pass key")"
echo

read_and_ask dense "${DEMO_DENSE_TOKENS:-16384}"
if [[ "$answer" == *"$key"* ]]; then
  say "dense attention found the pass key too"
else
  say "dense attention, past the 8,192 tokens that the model was trained on, did not"
fi
[[ $found == yes ]]
