// Rounding between f32 and bf16, to nearest even; NaN stays NaN. Elements of arrays of either.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bough/types.h"

namespace bough {

inline uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t nan = (bits >> 16) | 0x40u, number = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : number);
}

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// The largest |x[i]|; not finite where one of them is not. 0 of none.
inline float largest_magnitude(const float* x, int64_t n) {
  uint32_t most = 0;  // magnitudes order as their bits, those that are not finite last
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return std::bit_cast<float>(most);
}

// x as an operand of attention over a KV cache of `type`: the quantised types are read as bf16.
inline float rounded(float x, DType type) { return type == DType::f32 ? x : from_bf16(to_bf16(x)); }

// Element i of an array. REQUIRES: type is f32 or bf16.
inline float load_element(const std::byte* array, size_t i, DType type) {
  if (type == DType::f32) {
    float x;
    std::memcpy(&x, array + i * sizeof(float), sizeof(float));
    return x;
  }
  uint16_t x;
  std::memcpy(&x, array + i * sizeof(uint16_t), sizeof(uint16_t));
  return from_bf16(x);
}

inline void store_element(std::byte* array, size_t i, DType type, float x) {
  if (type == DType::f32) {
    std::memcpy(array + i * sizeof(float), &x, sizeof(float));
    return;
  }
  const uint16_t half = to_bf16(x);
  std::memcpy(array + i * sizeof(uint16_t), &half, sizeof(uint16_t));
}

}  // namespace bough
