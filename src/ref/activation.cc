#include "steps/activation.h"

#include <cmath>

#include "ref/model_bodies.h"

namespace bough::ref {

void activation(const ActivationArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) a.y[i] = a.gate[i] / (1.0F + std::exp(-a.gate[i])) * a.up[i];
}

}  // namespace bough::ref
