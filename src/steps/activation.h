// activation: y = silu(gate) * up, silu(g) = g / (1 + e^-g).
#pragma once

#include <cstdint>

namespace bough {

struct ActivationArgs {
  const float* gate = nullptr;  // [count]
  const float* up = nullptr;    // [count]
  int64_t count = 0;
  float* y = nullptr;  // [count]; may be gate
};

}  // namespace bough
