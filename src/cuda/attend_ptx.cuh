// Instructions that attention uses and CUDA C++ has no name for: meetings of warps, registers, warpgroup matrix products.
//
// Warpgroup products read shared memory in rows of 128 bytes (64 elements), whose 16-byte pieces are permuted: piece c of row r lies at
// c ^ (r % 8). Such a panel begins at a multiple of 1024 bytes.
#pragma once

#include <cstdint>

#include "cuda/prim/copy.cuh"
#include "cuda/prim/mma.cuh"

namespace bough::cuda {

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A meeting of `threads` threads, of which those that only arrive go on.
__device__ __forceinline__ void meet(int meeting, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(meeting), "r"(threads) : "memory"); }
__device__ __forceinline__ void meet_later(int meeting, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(meeting), "r"(threads) : "memory");
}

template <int N>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

__device__ __forceinline__ void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wait_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
// Keeps uses of results behind the wait.
template <int N>
__device__ __forceinline__ void settle(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Operands in shared memory, as their low words; `bytes` further on: + bytes / 16. The high word says that eight rows lie 1024 bytes from
// the next eight, permuted as above.
inline constexpr uint32_t kOperandHigh = 1U << 30 | 1024 >> 4;
// The product sums along rows.
__device__ __forceinline__ uint32_t along_sum(uint32_t address) { return (address & 0x3ffff) >> 4 | 1U << 16; }
// Rows go along the result's columns; the next 64 columns lie `panel` bytes on.
__device__ __forceinline__ uint32_t across_sum(uint32_t address, uint32_t panel) { return (address & 0x3ffff) >> 4 | panel >> 4 << 16; }

#define BOUGH_OUT4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define BOUGH_OUT16(i) BOUGH_OUT4(i), BOUGH_OUT4(i + 4), BOUGH_OUT4(i + 8), BOUGH_OUT4(i + 12)
#define BOUGH_NAMES16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define BOUGH_NAMES32 BOUGH_NAMES16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define BOUGH_NAMES40 BOUGH_NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define BOUGH_NAMES64 BOUGH_NAMES40 ",%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// TYPE, columns, names of the results, numbers of the operands after them, the results.
#define BOUGH_WGMMA_SHARED(TYPE, N, NAMES, A, B, H, P, ...)                                                            \
  asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %" #P                                                \
               ", 0;\n"                                                                                                \
               "mov.b64 a, {%" #A ", %" #H "};\nmov.b64 b, {%" #B ", %" #H                                             \
               "};\n"                                                                                                  \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES "}, a, b, p, 1, 1, 0, 0;\n}" \
               : __VA_ARGS__                                                                                           \
               : "r"(a), "r"(b), "n"(kOperandHigh), "r"(static_cast<int>(add)))
#define BOUGH_WGMMA_REGISTERS(TYPE, N, NAMES, A0, A1, A2, A3, B, H, ...)                                                         \
  asm volatile("{\n.reg .b64 b;\nmov.b64 b, {%" #B ", %" #H                                                                      \
               "};\n"                                                                                                            \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 \
               "}, b, 1, 1, 1, 1;\n}"                                                                                            \
               : __VA_ARGS__                                                                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kOperandHigh))
#define BOUGH_OUT32 BOUGH_OUT16(0), BOUGH_OUT16(16)
#define BOUGH_OUT40 BOUGH_OUT32, BOUGH_OUT4(32), BOUGH_OUT4(36)
#define BOUGH_OUT64 BOUGH_OUT32, BOUGH_OUT16(32), BOUGH_OUT16(48)

// c [64, N] (+)= a [64, 16] b [N, 16]^T, both from shared memory, along_sum.
template <typename T, int N>
__device__ __forceinline__ void multiply_shared(float (&c)[N / 2], uint32_t a, uint32_t b, bool add) {
  static_assert(N == 80 || N == 128);
  if constexpr (N == 80 && __is_same(T, __half)) {
    BOUGH_WGMMA_SHARED("f16", 80, BOUGH_NAMES40, 40, 41, 42, 43, BOUGH_OUT40);
  } else if constexpr (N == 80) {
    BOUGH_WGMMA_SHARED("bf16", 80, BOUGH_NAMES40, 40, 41, 42, 43, BOUGH_OUT40);
  } else if constexpr (__is_same(T, __half)) {
    BOUGH_WGMMA_SHARED("f16", 128, BOUGH_NAMES64, 64, 65, 66, 67, BOUGH_OUT64);
  } else {
    BOUGH_WGMMA_SHARED("bf16", 128, BOUGH_NAMES64, 64, 65, 66, 67, BOUGH_OUT64);
  }
}

// c [64, N] += a [64, 16] b [16, N]: a from registers, b from shared memory, across_sum.
template <typename T, int N>
__device__ __forceinline__ void multiply_registers(float (&c)[N / 2], const uint32_t (&a)[4], uint32_t b) {
  static_assert(N == 64 || N == 128);
  if constexpr (N == 64 && __is_same(T, __half)) {
    BOUGH_WGMMA_REGISTERS("f16", 64, BOUGH_NAMES32, 32, 33, 34, 35, 36, 37, BOUGH_OUT32);
  } else if constexpr (N == 64) {
    BOUGH_WGMMA_REGISTERS("bf16", 64, BOUGH_NAMES32, 32, 33, 34, 35, 36, 37, BOUGH_OUT32);
  } else if constexpr (__is_same(T, __half)) {
    BOUGH_WGMMA_REGISTERS("f16", 128, BOUGH_NAMES64, 64, 65, 66, 67, 68, 69, BOUGH_OUT64);
  } else {
    BOUGH_WGMMA_REGISTERS("bf16", 128, BOUGH_NAMES64, 64, 65, 66, 67, 68, 69, BOUGH_OUT64);
  }
}

#undef BOUGH_WGMMA_SHARED
#undef BOUGH_WGMMA_REGISTERS
#undef BOUGH_NAMES16
#undef BOUGH_NAMES32
#undef BOUGH_NAMES40
#undef BOUGH_NAMES64
#undef BOUGH_OUT4
#undef BOUGH_OUT16
#undef BOUGH_OUT32
#undef BOUGH_OUT40
#undef BOUGH_OUT64

}  // namespace bough::cuda
