// The branches of a tree search, on a host or a device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"
#include "bough/attention.h"

namespace bough {

// Key blocks [start, start + size) counted from the sinks.
struct Branch {
  int32_t start = 0;
  int32_t size = 0;
};

// At most x. std::bit_floor is wrong in device code: nvcc 13 folds it to 1. REQUIRES: 0 < x < 2^32.
BOUGH_HD inline int64_t greatest_power_of_two(int64_t x) {
  auto bits = static_cast<uint64_t>(x);
  for (int shift = 1; shift < 32; shift *= 2) bits |= bits >> shift;
  return static_cast<int64_t>(bits ^ (bits >> 1));
}

// Where branch j of n begins: nearly equal runs of the B key blocks, snapped to a grid so that neighbouring query blocks, whose B
// differs a little, agree on most of them. Branch n begins at B; none is longer than 2 (B / n + 1). REQUIRES: n < B.
BOUGH_HD inline int64_t first_branch_start(int64_t j, int64_t n, int64_t blocks) {
  if (j == n) return blocks;
  const int64_t grid = greatest_power_of_two(blocks);
  const int64_t step = (grid + n - 1) / n;
  return std::min(blocks, j * blocks / n / step * step);
}

// The key block that speaks for a branch.
BOUGH_HD inline int64_t representative_of(const Branch& branch, Representative rep) {
  switch (rep) {
    case Representative::first: return branch.start;
    case Representative::last: return branch.start + branch.size - 1;
    default: return branch.start + branch.size / 2;
  }
}

}  // namespace bough
