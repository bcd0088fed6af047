#include "steps/activation.h"

#include <cmath>

#include "ref/model_bodies.h"

namespace bough::ref {
namespace {

float gelu_tanh(float gate) {
  const double g = gate;
  return static_cast<float>(g / (1.0 + std::exp(-2.0 * kGeluSlope * (g + kGeluCubic * g * g * g))));
}

}  // namespace

void activation(const ActivationArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const float g = a.gate[i];
    a.y[i] = (a.kind == Activation::silu ? g / (1.0F + std::exp(-g)) : gelu_tanh(g)) * a.up[i];
  }
}

}  // namespace bough::ref
