// Copies from global to shared memory that nobody waits for at once, and the barriers that bulk copies arrive at.
#pragma once

#include <cstdint>

#include "cuda/prim/mma.cuh"

namespace bough::cuda {

// Sixteen bytes; each thread's copies up to commit_copies are a group.
__device__ __forceinline__ void copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all of this thread's groups but the last N are there.
template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// From compute capability 9.0 on: barriers in shared memory, by their shared addresses.
__device__ __forceinline__ void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Barriers that this thread has made are there for bulk copies.
__device__ __forceinline__ void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive_at(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Until phase number `phase` (its parity counts) of the barrier is over.
__device__ __forceinline__ void wait_phase(uint32_t barrier, uint32_t phase) {
  uint32_t over = 0;
  while (over == 0) {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over)
                 : "r"(barrier), "r"(phase & 1)
                 : "memory");
  }
}

// What this thread wrote to or read from shared memory comes before bulk copies to it, and before warpgroup products that read it, which
// other threads begin after a barrier.
__device__ __forceinline__ void publish_to_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Bulk copies that follow see what stores of kernels before this one wrote.
__device__ __forceinline__ void written_before() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
// One thread: `bytes`, a multiple of 16, arrive at `barrier`.
__device__ __forceinline__ void bulk_copy(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}

// `bytes`, a multiple of 16, from shared memory to global memory, by all lanes of a warp after they wrote what it copies. BULK: by the bulk
// copy engine where there is one; the place in shared memory is free after wait_stores of the same threads.
template <bool BULK>
__device__ __forceinline__ void store_rows(void* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  if constexpr (BULK) {
    publish_to_async();
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(from)), "r"(bytes)
                   : "memory");
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    }
    return;
  }
#endif
  __syncwarp();
  for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16) {
    *reinterpret_cast<uint4*>(static_cast<char*>(to) + i) = *reinterpret_cast<const uint4*>(static_cast<const char*>(from) + i);
  }
}
__device__ __forceinline__ void wait_stores() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}

// One train of copies of whole rows by one warp, each begun and waited for in turn: by the bulk copy engine where there is one. A warp may
// have several, so that one copy is on its way while another is used. `barrier` is the train's own.
class RowCopies {
 public:
  // All lanes of the warp.
  __device__ __forceinline__ explicit RowCopies(uint64_t* barrier) : barrier_(shared_address(barrier)) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0) {
      init_barrier(barrier_, 1);
      publish_barriers();
    }
    __syncwarp();
#endif
  }

  // Begins to copy `bytes`, a multiple of 16; 0: nothing, which is not waited for either. All lanes of the warp; what was read from the
  // place or written to it was released.
  __device__ __forceinline__ void begin(void* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0 && bytes > 0) bulk_copy(shared_address(to), from, bytes, barrier_);
    __syncwarp();
#else
    for (int i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16) {
      copy16(shared_address(static_cast<char*>(to) + i), static_cast<const char*>(from) + i);
    }
    commit_copies();
#endif
    under_way_ = bytes > 0;
  }

  // Until the last copy that was begun is there, for all lanes of the warp. LATER: how many copies of other trains were begun after it.
  template <int LATER>
  __device__ __forceinline__ void wait() {
    if (!under_way_) return;
#if __CUDA_ARCH__ >= 900
    wait_phase(barrier_, phase_);
    phase_ ^= 1;
#else
    wait_copies<LATER>();
#endif
    __syncwarp();
  }

  // What this thread read from shared memory or wrote to it comes before copies that are begun after the next barrier.
  static __device__ __forceinline__ void release() {
#if __CUDA_ARCH__ >= 900
    publish_to_async();
#endif
  }

 private:
  uint32_t barrier_;
  uint32_t phase_ = 0;
  bool under_way_ = false;
};

}  // namespace bough::cuda
