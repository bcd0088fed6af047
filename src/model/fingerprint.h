// Fingerprint: which model a KV cache belongs to.
#pragma once

#include <array>
#include <cstdint>

#include "bough/status.h"
#include "model/gguf.h"

namespace bough {

struct Fingerprint {
  // Of every tensor (name, type, shape, all its bytes) and all metadata but the tokenizer's and what only describes (general.*, save
  // general.architecture): files that compute the same are the same.
  std::array<uint64_t, 2> model{};
  uint64_t tokenizer = 0;  // of the vocabulary and its rules; the chat template is left out
};

// Reads the whole file, with OpenMP's threads: about as fast as memory. Errors: out_of_memory.
Result<Fingerprint> fingerprint(const GgufFile& file);

}  // namespace bough
