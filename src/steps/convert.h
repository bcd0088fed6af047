// Rounding between f32 and the KV cache's element type, to nearest even; NaN stays NaN.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bough/types.h"

namespace bough {

inline uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// x as it reads back after being stored as `type`.
inline float rounded(float x, DType type) { return type == DType::f32 ? x : from_bf16(to_bf16(x)); }

// Element i of a row of `type`.
inline float load_element(const std::byte* row, size_t i, DType type) {
  if (type == DType::f32) {
    float x;
    std::memcpy(&x, row + i * sizeof(float), sizeof(float));
    return x;
  }
  uint16_t x;
  std::memcpy(&x, row + i * sizeof(uint16_t), sizeof(uint16_t));
  return from_bf16(x);
}

inline void store_element(std::byte* row, size_t i, DType type, float x) {
  if (type == DType::f32) {
    std::memcpy(row + i * sizeof(float), &x, sizeof(float));
    return;
  }
  const uint16_t half = to_bf16(x);
  std::memcpy(row + i * sizeof(uint16_t), &half, sizeof(uint16_t));
}

}  // namespace bough
