#!/usr/bin/env bash
# Size budgets of files and functions; with --tidy also clang-tidy over our sources (build/release must be configured).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
python3 tools/check_size.py || status=1
if [[ "${1:-}" != --tidy ]]; then exit $status; fi

command -v run-clang-tidy >/dev/null || { echo "run-clang-tidy is missing; run tools/setup.sh" >&2; exit 1; }
[[ -f build/release/compile_commands.json ]] || { echo "build/release is not configured; run make build" >&2; exit 1; }
# Clang brings no omp.h of its own here. GCC's will do without an attribute that clang does not know; the rest of GCC's folder
# would bring GCC's intrinsics along.
mkdir -p build/lint
sed -E 's/__malloc__ \([^)]*\)/__malloc__/' "$(c++ -print-file-name=include/omp.h)" >build/lint/omp.h
shift
files=("$@")
if ((${#files[@]} == 0)); then mapfile -t files < <(git ls-files --cached --others --exclude-standard -- 'src/*.cc' 'apps/*.cc'); fi
patterns=()
for file in "${files[@]}"; do patterns+=("^$PWD/$file\$"); done
run-clang-tidy -quiet -p build/release -j "${JOBS:-$(nproc)}" -extra-arg="-isystem$PWD/build/lint" \
  -extra-arg=-Wno-unknown-warning-option "${patterns[@]}" || status=1
exit $status
