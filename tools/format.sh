#!/usr/bin/env bash
# Formats the sources with clang-format 14; --check only says which files differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v clang-format >/dev/null || { echo "clang-format is missing; run tools/setup.sh" >&2; exit 1; }
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh' | sort -u)
if ((${#files[@]} == 0)); then exit; fi
if [[ "${1:-}" == --check ]]; then
  clang-format --style=file --dry-run -Werror "${files[@]}"
else
  clang-format --style=file -i "${files[@]}"
fi
