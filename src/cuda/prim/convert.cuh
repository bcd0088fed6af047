// Elements: pairs of 16-bit floats in registers, and eight cache elements widened to them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace bough::cuda {

// How a cache stores elements, seen from the type that matrix products are made in.
enum class Kv : uint8_t { same, e4m3, i8 };

__device__ __forceinline__ uint32_t bits(__nv_bfloat162 x) { return *reinterpret_cast<const uint32_t*>(&x); }
__device__ __forceinline__ uint32_t bits(__half2 x) { return *reinterpret_cast<const uint32_t*>(&x); }

template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  return bits(__floats2bfloat162_rn(low, high));
}
template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  return bits(__floats2half2_rn(low, high));
}

template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t x);
template <>
__device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t x) {
  return {__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u)};
}
template <>
__device__ __forceinline__ float2 unpack<__half>(uint32_t x) {
  return __half22float2(*reinterpret_cast<const __half2*>(&x));
}

// Global memory that nobody writes while the kernel runs.
__device__ __forceinline__ uint4 load16(const void* p) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}
__device__ __forceinline__ uint2 load8(const void* p) {
  uint2 r;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
  return r;
}

template <Kv KV>
inline constexpr int kElementBytes = KV == Kv::same ? 2 : 1;

template <typename T>
__device__ __forceinline__ uint32_t widen_e4m3(uint32_t pair) {
  const __half2 h = __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3));
  if constexpr (sizeof(T) == sizeof(__half) && __is_same(T, __half)) return bits(h);
  const float2 f = __half22float2(h);
  return pack<T>(f.x, f.y);
}
template <typename T>
__device__ __forceinline__ uint32_t widen_i8(uint32_t pair) {
  return pack<T>(static_cast<float>(static_cast<int8_t>(pair & 0xff)), static_cast<float>(static_cast<int8_t>(pair >> 8 & 0xff)));
}

// Eight codes as T, exactly.
template <typename T, Kv KV>
__device__ __forceinline__ uint4 widen_eight(uint2 x) {
  static_assert(KV != Kv::same);
  const auto pair = [](uint32_t codes) { return KV == Kv::e4m3 ? widen_e4m3<T>(codes) : widen_i8<T>(codes); };
  return {pair(x.x & 0xffff), pair(x.x >> 16), pair(x.y & 0xffff), pair(x.y >> 16)};
}

// Eight stored elements from element `at` of `data` on, as T, exactly and without their scale.
template <typename T, Kv KV>
__device__ __forceinline__ uint4 load_eight(const void* data, int64_t at) {
  if constexpr (KV == Kv::same) {
    return load16(static_cast<const T*>(data) + at);
  } else {
    return widen_eight<T, KV>(load8(static_cast<const uint8_t*>(data) + at));
  }
}

}  // namespace bough::cuda
