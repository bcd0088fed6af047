// logits: the chosen rows of x, normed and scored against the vocabulary, capped where the model does. Rows of prefill are multiplied
// precisely, not in 8 bits.
#pragma once

#include "steps/linear.h"
#include "steps/norm.h"

namespace bough {

struct LogitsArgs {
  const float* x = nullptr;       // [t, d_model]
  const int32_t* rows = nullptr;  // [count] ascending
  int64_t count = 0;
  int64_t decode_rows = 0;             // rows below this were decode rows: their phase is decode
  const float* norm_weight = nullptr;  // [d_model]
  float eps = 0;
  Tensor output;  // [vocab, d_model]
  PackedWeights* packed = nullptr;
  float* normed = nullptr;      // [count, d_model] scratch
  float* logits = nullptr;      // [count, vocab]
  const float* bias = nullptr;  // [vocab] or null
  float softcap = 0;            // 0: none
};

}  // namespace bough
