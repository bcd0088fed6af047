// What scan_rows takes from sm_90a: products of a warpgroup.
#pragma once

#include <cstdint>

#include "cuda/prim/copy.cuh"

namespace bough::cuda {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// B operand of 64 columns, K-major with 128-byte swizzle: rows of 128 bytes, eight rows 1024 bytes apart.
__device__ __forceinline__ uint64_t swizzled_columns(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
}

// c [64, 64] = a [64, 16] b [16, 64], with ADD added to what it was. A lane has rows r = 16 warp + lane / 4 and r + 8 of a and c: of a
// elements 2 q, 2 q + 1, 2 q + 8, 2 q + 9 (q = lane % 4) of row r in a0 and a2, of row r + 8 in a1 and a3; of c columns 8 i + 2 q and the
// next in c[4 i] and c[4 i + 1], of row r + 8 in c[4 i + 2] and c[4 i + 3].
#define BOUGH_WGMMA_64(TYPES)                                                                                                              \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES                               \
               " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}," \
               " {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}"                                                                                   \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]),   \
                 "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]),      \
                 "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),      \
                 "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])                                                                        \
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(columns), "n"(ADD))
template <typename T, bool ADD>
__device__ __forceinline__ void wgmma64(float (&c)[32], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t columns) {
  if constexpr (__is_same(T, __half)) {
    BOUGH_WGMMA_64("f16.f16");
  } else {
    BOUGH_WGMMA_64("bf16.bf16");
  }
}
#undef BOUGH_WGMMA_64

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_end() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

#endif

}  // namespace bough::cuda
