// norm: y = x / sqrt(mean(x^2) + eps) * weight, row by row (RMS norm), or that added to y. The mean is summed in f32 over eight partial
// sums or more. The heads of a row are normed apart as t * heads rows of head_dim.
#pragma once

#include <cstdint>

namespace bough {

struct NormArgs {
  const float* x = nullptr;       // [t, n]
  const float* weight = nullptr;  // [n]
  int64_t rows = 0;
  int64_t n = 0;
  float eps = 0;
  float* y = nullptr;  // [t, n]; may be x
  bool add = false;
};

}  // namespace bough
