// Copies of whole rows from global to shared memory, by one warp: the bulk copy engine where there is one, else cp.async. A warp has one or
// more trains of copies; each train's copies are begun and waited for in turn, so that a second one may be on its way while the first is
// used.
#pragma once

#include <cstdint>

#include "cuda/prim/mma.cuh"

namespace bough::cuda {

// One train: where its copies arrive, and how many did. `barrier` is the warp's own.
class RowCopies {
 public:
  // All lanes of the warp.
  __device__ __forceinline__ explicit RowCopies(uint64_t* barrier) : barrier_(barrier) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier_)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
  }

  // Begins to copy `bytes`, a multiple of 16; 0: nothing, which is not waited for either. All lanes of the warp; what the warp read from
  // or wrote to the place before is done with.
  __device__ __forceinline__ void begin(void* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0 && bytes > 0) {
      const uint32_t bar = shared_address(barrier_);
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                   "l"(from), "r"(bytes), "r"(bar)
                   : "memory");
    }
    __syncwarp();
#else
    for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(static_cast<char*>(to) + i)),
                   "l"(static_cast<const char*>(from) + i)
                   : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    under_way_ = bytes > 0;
  }

  // Until the last copy that was begun is there, for all lanes of the warp. On devices without bulk copies LATER is how many copies of
  // other trains were begun after it.
  template <int LATER>
  __device__ __forceinline__ void wait() {
    if (!under_way_) return;
#if __CUDA_ARCH__ >= 900
    uint32_t over = 0;
    while (over == 0) {
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(over)
                   : "r"(shared_address(barrier_)), "r"(phase_)
                   : "memory");
    }
    phase_ ^= 1;
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
#endif
    __syncwarp();
  }

  // Of this thread what was read from or written to shared memory comes before copies that are begun after the next barrier.
  static __device__ __forceinline__ void release() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }

 private:
  uint64_t* barrier_;
  uint32_t phase_ = 0;
  bool under_way_ = false;
};

}  // namespace bough::cuda
