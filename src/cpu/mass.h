// Attention mass from the weights of the online softmax. While it runs, a group holds the log of its sum of exponentials, which no
// later maximum changes; at the end the row's log-sum-exp turns it into a probability.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "steps/convert.h"
#include "steps/mass.h"

namespace bough::cpu {

// weights: elements of `elem` bytes (2: bf16, 4: f32) relative to e^m, for the ranks from `first` on, a multiple of mass.keys.
// logs [groups]: of the whole context.
inline void log_mass(const Mass& mass, const std::byte* weights, size_t elem, int64_t first, int count, float m, int64_t groups,
                     float* logs) {
  const DType type = elem == 2 ? DType::bf16 : DType::f32;
  const int64_t from = first / mass.keys;
  const int64_t filled = std::min<int64_t>(groups - from, count / mass.keys);
  for (int64_t g = 0; g < filled; ++g) {
    float sum = 0;
    for (int i = 0; i < mass.keys; ++i) sum += load_element(weights, static_cast<size_t>(g * mass.keys + i), type);
    logs[from + g] = sum > 0 ? m + std::log(sum) : -std::numeric_limits<float>::infinity();
  }
}

// In place: logs [groups] to probabilities.
inline void finish_mass(float lse, int64_t groups, float* logs) {
  for (int64_t g = 0; g < groups; ++g) logs[g] = std::isinf(logs[g]) ? 0.0F : std::exp(logs[g] - lse);
}

}  // namespace bough::cpu
