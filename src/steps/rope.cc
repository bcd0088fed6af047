#include "steps/rope.h"

#include <algorithm>
#include <cmath>

namespace bough {

void RopeTable::reserve(int64_t count) {
  const int64_t wanted = (count + kTile - 1) / kTile * kTile;
  if (wanted <= positions_) return;
  const int p = pairs();
  const double magnitude = params_.magnitude;
  rows_.resize(static_cast<size_t>(wanted * 2 * p));
  tiles_.resize(static_cast<size_t>(wanted * 2 * p));
#pragma omp parallel for schedule(static)
  for (int64_t pos = positions_; pos < wanted; ++pos) {
    float* row = rows_.data() + pos * 2 * p;
    float* tile = tiles_.data() + pos / kTile * 2 * p * kTile + pos % kTile;
    for (int i = 0; i < p; ++i) {
      const double angle = static_cast<double>(pos) * params_.frequencies[static_cast<size_t>(i)];
      row[i] = static_cast<float>(magnitude * std::cos(angle));
      row[p + i] = static_cast<float>(magnitude * std::sin(angle));
      tile[i * kTile] = row[i];
      tile[(p + i) * kTile] = row[p + i];
    }
  }
  positions_ = wanted;
}

void rope_row(const float* x, const float* cos, const float* sin, const RopeParams& params, int d, float* y) {
  const int p = params.dims / 2;
  for (int i = 0; i < p; ++i) {
    const int a = params.layout == RopeLayout::interleaved ? 2 * i : i;
    const int b = params.layout == RopeLayout::interleaved ? 2 * i + 1 : i + p;
    const float xa = x[a];
    const float xb = x[b];
    y[a] = xa * cos[i] - xb * sin[i];
    y[b] = xa * sin[i] + xb * cos[i];
  }
  if (y != x) std::copy(x + params.dims, x + d, y + params.dims);
}

void magnify_row(const RopeParams& params, float* x) {
  if (params.magnitude == 1) return;
  for (int i = 0; i < params.dims; ++i) x[i] *= static_cast<float>(params.magnitude);
}

}  // namespace bough
