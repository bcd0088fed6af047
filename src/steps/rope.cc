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

namespace {

// Pairs (2i, 2i + 1).
void turn_interleaved(const float* x, const float* __restrict cos, const float* __restrict sin, int pairs, float* y) {
#pragma GCC ivdep  // a pair is read before it is written, x and y are one array or apart, and pairs share no element
  for (int i = 0; i < pairs; ++i) {
    const float xa = x[2 * i], xb = x[2 * i + 1];
    y[2 * i] = xa * cos[i] - xb * sin[i];
    y[2 * i + 1] = xa * sin[i] + xb * cos[i];
  }
}

// Pairs (i, i + pairs).
void turn_halves(const float* x, const float* __restrict cos, const float* __restrict sin, int pairs, float* y) {
#pragma GCC ivdep  // as above
  for (int i = 0; i < pairs; ++i) {
    const float xa = x[i], xb = x[pairs + i];
    y[i] = xa * cos[i] - xb * sin[i];
    y[pairs + i] = xa * sin[i] + xb * cos[i];
  }
}

}  // namespace

void rope_row(const float* x, const float* cos, const float* sin, const RopeParams& params, int d, float* y) {
  const auto turn = params.layout == RopeLayout::interleaved ? turn_interleaved : turn_halves;
  turn(x, cos, sin, params.dims / 2, y);
  if (y != x) std::copy(x + params.dims, x + d, y + params.dims);
}

void magnify_row(const RopeParams& params, float* x) {
  if (params.magnitude == 1) return;
  for (int i = 0; i < params.dims; ++i) x[i] *= static_cast<float>(params.magnitude);
}

}  // namespace bough
