#!/usr/bin/env bash
# Prints the King James Bible of the Debian package bible-kjv as one line: verses joined by single spaces, without their references.
# 990,597 tokens of the default model.
set -euo pipefail

if ! command -v bible >/dev/null; then
  echo "book.sh: the program 'bible' is missing; it is in the Debian package bible-kjv" >&2
  exit 1
fi
bible -f gen1:1-rev22:21 | sed -E 's/^[1-3]?[A-Za-z]+[0-9]+:[0-9]+ //' | tr '\n' ' ' | sed -E 's/ +/ /g; s/ $//'
