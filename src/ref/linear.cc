#include "steps/linear.h"

#include <vector>

#include "ref/model_bodies.h"

namespace bough::ref {
namespace {

void multiply(const LinearArgs& a) {
  std::vector<float> row(static_cast<size_t>(a.w.cols));
  for (int64_t n = 0; n < a.w.rows; ++n) {
    const auto id = static_cast<TokenId>(n);
    embed({&id, 1, a.w, row.data()});
    for (int64_t t = 0; t < a.rows; ++t) {
      float sum = 0;
      if (a.bias != nullptr) sum = a.bias[n];
      for (int64_t k = 0; k < a.w.cols; ++k) sum += a.x[t * a.w.cols + k] * row[static_cast<size_t>(k)];
      float& y = a.y[t * a.w.rows + n];
      y = a.add ? y + sum : sum;
    }
  }
}

}  // namespace

void linear(std::span<const LinearArgs> products) {
  for (const LinearArgs& a : products) multiply(a);
}

}  // namespace bough::ref
