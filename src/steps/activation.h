// activation: y = f(gate) * up. silu(g) = g / (1 + e^-g); gelu_tanh(g) = g / (1 + e^-2u) with u = sqrt(2 / pi) (g + 0.044715 g^3), which is
// g / 2 (1 + tanh u).
#pragma once

#include <cstdint>

namespace bough {

enum class Activation : uint8_t { silu, gelu_tanh };

inline constexpr double kGeluSlope = 0.79788456080286536;  // sqrt(2 / pi)
inline constexpr double kGeluCubic = 0.044715;

struct ActivationArgs {
  const float* gate = nullptr;  // [count]
  const float* up = nullptr;    // [count]
  int64_t count = 0;
  float* y = nullptr;  // [count]; may be gate
  Activation kind = Activation::silu;
};

}  // namespace bough
