// Sums over the threads of a block, and floats as integers of the same order.
#pragma once

#include <cstdint>

namespace bough::cuda {

// 0 is below every score.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t b = __float_as_uint(x);
  return (b & 0x80000000u) != 0 ? ~b : b | 0x80000000u;
}

// The sum of x over the threads before this one; `total` of all. `sums` [32] is shared. REQUIRES: all threads of a block of at most 1024,
// a multiple of 32.
__device__ __forceinline__ int sum_before(int x, int* sums, int* total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  int s = x;
  for (int o = 1; o < 32; o *= 2) {
    const int y = __shfl_up_sync(~0u, s, o);
    if (lane >= o) s += y;
  }
  if (lane == 31) sums[warp] = s;
  __syncthreads();
  if (warp == 0) {
    int w = lane < warps ? sums[lane] : 0;
    for (int o = 1; o < 32; o *= 2) {
      const int y = __shfl_up_sync(~0u, w, o);
      if (lane >= o) w += y;
    }
    sums[lane] = w;
  }
  __syncthreads();
  const int before = warp > 0 ? sums[warp - 1] : 0;
  *total = sums[warps - 1];
  __syncthreads();
  return before + s - x;
}

}  // namespace bough::cuda
