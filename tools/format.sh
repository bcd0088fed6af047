#!/usr/bin/env bash
# Formats the sources with clang-format 14; --check only says which files differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v clang-format >/dev/null || { echo "clang-format is missing; run tools/setup.sh" >&2; exit 1; }
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh' | sort -u)
if ((${#files[@]} == 0)); then exit; fi
if [[ "${1:-}" != --check ]]; then
  clang-format --style=file -i "${files[@]}"
  exit
fi
differ=()
for file in "${files[@]}"; do
  clang-format --style=file "$file" | cmp -s - "$file" || differ+=("$file")
done
if ((${#differ[@]} > 0)); then
  echo "not formatted (make format does it): ${differ[*]}" >&2
  exit 1
fi
echo "format: all ${#files[@]} files"
