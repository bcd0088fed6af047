// Places in ascending arrays.
#pragma once

#include <cstdint>

namespace bough::cuda {

// The last of `count` ascending starts that is at most i. REQUIRES: starts[0] <= i.
__device__ __forceinline__ int last_at_most(const int32_t* starts, int count, int i) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (starts[middle] <= i)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace bough::cuda
