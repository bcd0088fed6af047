// linear: y = x W^T + bias, or that added to y. A row's result depends on the phase, N and K only, never on the other rows.
#pragma once

#include "steps/tensor.h"

namespace bough {

// prefill: W is dequantised and multiplied in bf16 (f32 where W is f32 or the CPU lacks bf16). decode: dot products straight on the
// quantised rows, x quantised as ggml's dot product for that type wants it.
enum class Phase : uint8_t { prefill, decode };

class PackedWeights;

struct LinearArgs {
  const float* x = nullptr;  // [t, w.cols]
  int64_t rows = 0;          // t
  Tensor w;                  // [n, k]
  Phase phase = Phase::prefill;
  bool add = false;
  float* y = nullptr;               // [t, w.rows]
  PackedWeights* packed = nullptr;  // where prefill keeps dequantised weights; outlives the call, may be null
  const float* bias = nullptr;      // [n] or null
};

}  // namespace bough
