#include "steps/scan.h"

#include <algorithm>

namespace bough {

namespace {

// out[i] = x[i] * weight, or the sum of `count` rows times it.
void weigh(const float* __restrict x, int64_t row_stride, int64_t count, int d, float weight, float* __restrict out) {
  if (count == 1) {
    for (int i = 0; i < d; ++i) out[i] = x[i] * weight;
    return;
  }
  for (int i = 0; i < d; ++i) out[i] = x[i] + x[row_stride + i];
  for (int64_t r = 2; r < count; ++r) {
    const float* __restrict row = x + r * row_stride;
    for (int i = 0; i < d; ++i) out[i] += row[i];
  }
  for (int i = 0; i < d; ++i) out[i] *= weight;
}

}  // namespace

void pool_rows(const QueryBlock& block, int stride, Pool pool, const float* q, int64_t row_stride, int d, float scale, float* out) {
  const int64_t step = pool == Pool::all ? 1 : stride;
  int64_t begin = block.r0;
  for (float* group = out; begin < block.r1(); group += d) {
    const int64_t end = std::min(block.r1(), (begin / step + 1) * step);
    const int64_t from = pool == Pool::mean ? begin : end - 1;
    weigh(q + (from - block.r0) * row_stride, row_stride, end - from, d, scale / static_cast<float>(end - from), group);
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
