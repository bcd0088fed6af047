// Copies of whole rows from global to shared memory, by one warp: the bulk copy engine where there is one, else cp.async.
#pragma once

#include <cstdint>

#include "cuda/prim/mma.cuh"

namespace bough::cuda {

// Begins to copy `bytes` (a multiple of 16) each to two places. All lanes of a warp call it; `arrived` is that warp's own, used once.
__device__ __forceinline__ void copy_pair(void* to0, const void* from0, void* to1, const void* from1, int bytes, uint64_t* arrived) {
  const int lane = threadIdx.x % 32;
#if __CUDA_ARCH__ >= 900
  if (lane == 0) {
    const uint32_t bar = shared_address(arrived);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(2 * bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to0)),
                 "l"(from0), "r"(bytes), "r"(bar)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to1)),
                 "l"(from1), "r"(bytes), "r"(bar)
                 : "memory");
  }
  __syncwarp();
#else
  (void)arrived;
  for (int i = lane * 16; i < bytes; i += 32 * 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(static_cast<char*>(to0) + i)),
                 "l"(static_cast<const char*>(from0) + i)
                 : "memory");
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(static_cast<char*>(to1) + i)),
                 "l"(static_cast<const char*>(from1) + i)
                 : "memory");
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until what copy_pair began is there, for all lanes of the warp.
__device__ __forceinline__ void wait_pair(uint64_t* arrived) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n.reg .pred p;\nWAIT_PAIR: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0;\n@p bra ARRIVED_PAIR;\nbra "
      "WAIT_PAIR;\nARRIVED_PAIR:\n}" ::"r"(shared_address(arrived))
      : "memory");
#else
  (void)arrived;
  asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
  __syncwarp();
}

}  // namespace bough::cuda
