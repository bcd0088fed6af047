#include "steps/scan.h"

#include <algorithm>

namespace bough {

void pool_rows(const QueryBlock& block, int stride, Pool pool, const float* q, int64_t row_stride, int d, float scale, float* out) {
  const int64_t step = pool == Pool::all ? 1 : stride;
  int64_t begin = block.r0;
  for (float* group = out; begin < block.r1(); group += d) {
    const int64_t end = std::min(block.r1(), (begin / step + 1) * step);
    const int64_t from = pool == Pool::mean ? begin : end - 1;
    const float weight = scale / static_cast<float>(end - from);
    std::fill_n(group, d, 0.0F);
    for (int64_t p = from; p < end; ++p) {
      const float* row = q + (p - block.r0) * row_stride;
      for (int i = 0; i < d; ++i) group[i] += row[i];
    }
    for (int i = 0; i < d; ++i) group[i] *= weight;
    begin = end;
  }
}

int64_t pooled_position(const QueryBlock& block, int stride, Pool pool, int64_t index) {
  const int64_t step = pool == Pool::all ? 1 : stride;
  const int64_t group = block.r0 / step + index;
  if (pool == Pool::mean) return std::max(block.r0, group * step);
  return std::min(block.r1(), (group + 1) * step) - 1;
}

}  // namespace bough
