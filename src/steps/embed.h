// embed: token ids to rows of the embedding, as f32 times `scale`.
#pragma once

#include "bough/types.h"
#include "steps/tensor.h"

namespace bough {

struct EmbedArgs {
  const TokenId* ids = nullptr;  // [t], each inside the embedding
  int64_t rows = 0;              // t
  Tensor embedding;              // [vocab, d_model]
  float* x = nullptr;            // [t, d_model]
  float scale = 1.0F;
};

}  // namespace bough
