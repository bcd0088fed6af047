// ModelInfo: what a GGUF model file holds, and what a context of it will cost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "bough/status.h"
#include "bough/types.h"

namespace bough {

// What a model file says, before and without loading its weights.
struct ModelInfo {
  std::string architecture;
  std::string name;
  int layers = 0;
  int d_model = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int64_t vocab = 0;
  int64_t trained_context = 0;  // tokens
  int sliding_layers = 0;       // layers that see only the last `sliding_window` tokens
  int64_t sliding_window = 0;
  std::string rope_scaling;  // how positions are scaled, for example "linear by 8"; empty when they are not
  int64_t parameters = 0;
  int64_t file_bytes = 0;
  int64_t weight_bytes = 0;   // bytes of weights that one decode step reads
  std::string weight_types;   // for example "Q4_1, Q8_0, F32"
  std::string chat_template;  // empty when the file has none

  // Bytes that one token takes in the KV cache: the 64th part of a page, rounded up.
  int64_t kv_bytes_per_token(DType kv) const {
    const int64_t page = int64_t{2} * layers * kv_heads * static_cast<int64_t>(kv_head_bytes(kv, head_dim));
    return (page + kPageTokens - 1) / kPageTokens;
  }
};

// Checks the file and reads its description. Errors: not_found, corrupt, unsupported.
Result<ModelInfo> inspect_model(const std::string& path);

}  // namespace bough
