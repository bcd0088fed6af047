#include "steps/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ref/ref_bodies.h"

namespace bough::ref {

void merge(const MergeArgs& a) {
  for (int64_t row = 0; row < a.rows; ++row) {
    const float* lse = a.part_lse + row * a.parts;
    const float* part = a.part_o + row * a.parts * a.d;
    float* o = a.o + row * a.d;
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t p = 0; p < a.parts; ++p) top = std::max(top, lse[p]);
    std::fill_n(o, a.d, 0.0F);
    float sum = 0;
    for (int64_t p = 0; p < a.parts && std::isfinite(top); ++p) {
      const float weight = std::exp(lse[p] - top);
      sum += weight;
      for (int i = 0; i < a.d; ++i) o[i] += weight * part[p * a.d + i];
    }
    if (sum > 0) {
      for (int i = 0; i < a.d; ++i) o[i] /= sum;
    }
    if (a.lse != nullptr) a.lse[row] = sum > 0 ? top + std::log(sum) : top;
  }
}

}  // namespace bough::ref
