// Logits as llama.cpp computes them: KV cache, attention and GELU in f32, tokens read in batches of many.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bough/types.h"

struct llama_context;
struct llama_model;

namespace bough::test {

class LlamaReference {
 public:
  // A model file and the tokens that will be read at most. Null when the library refuses it.
  static std::unique_ptr<LlamaReference> open(const std::string& path, int64_t tokens);
  ~LlamaReference();
  LlamaReference(const LlamaReference&) = delete;
  LlamaReference& operator=(const LlamaReference&) = delete;

  // Reads `tokens` from position 0 and gives the logits of the last `rows` of them, [rows, vocab]; empty on failure. A single token is
  // never a batch of its own, unless it is all there is: the library's path for one token computes attention differently.
  std::vector<float> logits(std::span<const TokenId> tokens, int64_t rows);

 private:
  LlamaReference() = default;

  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
};

}  // namespace bough::test
