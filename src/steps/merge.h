// merge: attention over a set of keys from attention over its parts. o = sum_i exp(lse_i - lse) o_i, lse = log sum_i exp(lse_i).
#pragma once

#include <cstdint>

namespace bough {

struct MergeArgs {
  int64_t rows = 0;
  int64_t parts = 0;
  int d = 0;
  const float* part_o = nullptr;    // [rows, parts, d]
  const float* part_lse = nullptr;  // [rows, parts]; -inf: the part saw no key
  float* o = nullptr;               // [rows, d]
  float* lse = nullptr;             // [rows] or null
};

}  // namespace bough
