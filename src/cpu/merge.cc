#include "steps/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_bodies.h"

namespace bough::cpu {
namespace {

constexpr int64_t kParallel = 16384;  // elements that take longer than threads take to begin

}  // namespace

void merge(const MergeArgs& a) {
#pragma omp parallel for schedule(static) if (a.rows * a.parts * a.d > kParallel)
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* lse = a.part_lse + row * a.parts;
    const float* part = a.part_o + row * a.parts * a.d;
    float* o = a.o + row * a.d;
    const float top = *std::max_element(lse, lse + a.parts);
    std::fill_n(o, a.d, 0.0F);
    float sum = 0;
    for (int64_t p = 0; p < a.parts && std::isfinite(top); ++p) {
      const float weight = std::exp(lse[p] - top);
      sum += weight;
      for (int i = 0; i < a.d; ++i) o[i] += weight * part[p * a.d + i];
    }
    const float scale = sum > 0 ? 1.0F / sum : 0.0F;
    for (int i = 0; i < a.d; ++i) o[i] *= scale;
    if (a.lse != nullptr) a.lse[row] = sum > 0 ? top + std::log(sum) : top;
  }
}

}  // namespace bough::cpu
