#include "steps/norm.h"

#include <cmath>

#include "ref/model_bodies.h"

namespace bough::ref {

void norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.n;
    double sum = 0;
    for (int64_t i = 0; i < a.n; ++i) sum += static_cast<double>(x[i]) * x[i];
    const auto scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(a.n) + a.eps));
    for (int64_t i = 0; i < a.n; ++i) {
      float& y = a.y[t * a.n + i];
      y = (a.add ? y : 0.0F) + x[i] * scale * a.weight[i];
    }
  }
}

}  // namespace bough::ref
