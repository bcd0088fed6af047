// Elements of q, o and caches on the host, converted exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "bough/paged_attention.h"
#include "steps/convert.h"

namespace bough::test {

constexpr size_t element_bytes(ElementType type) { return type == ElementType::f16 || type == ElementType::bf16 ? 2 : 1; }

constexpr const char* type_name(ElementType type) {
  switch (type) {
    case ElementType::f16: return "f16";
    case ElementType::bf16: return "bf16";
    case ElementType::e4m3: return "e4m3";
    case ElementType::i8: return "i8";
  }
  return "unknown";
}

// Floats of a sign, `exponent` bits with this bias and `mantissa` bits, without infinities. Of |x| up to the largest of them.
inline uint32_t nearest_code(float x, int mantissa, int bias) {
  const float least = std::ldexp(1.0F, 1 - bias);  // normal
  if (x < least) return static_cast<uint32_t>(std::nearbyint(std::ldexp(x, mantissa + bias - 1)));
  const int exponent = std::ilogb(x);
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(x, mantissa - exponent)));
  return (static_cast<uint32_t>(exponent + bias) << mantissa) + (steps - (1U << mantissa));
}
inline float value_of_code(uint32_t code, int mantissa, int bias) {
  const auto exponent = static_cast<int>(code >> mantissa);
  const auto steps = static_cast<float>((code & ((1U << mantissa) - 1)) + (exponent == 0 ? 0U : 1U << mantissa));
  return std::ldexp(steps, (exponent == 0 ? 1 : exponent) - bias - mantissa);
}

// To nearest, ties to even.
inline uint16_t to_f16(float x) {
  if (std::isnan(x)) return 0x7e00;
  const auto sign = static_cast<uint32_t>(std::signbit(x) ? 0x8000 : 0);
  const float size = std::abs(x);
  return static_cast<uint16_t>(sign | (size >= 65520.0F ? 0x7c00U : nearest_code(size, 10, 15)));
}
inline float from_f16(uint16_t x) {
  const uint32_t code = x & 0x7fffU;
  const float size = code > 0x7c00    ? std::numeric_limits<float>::quiet_NaN()
                     : code == 0x7c00 ? std::numeric_limits<float>::infinity()
                                      : value_of_code(code, 10, 15);
  return (x & 0x8000U) != 0 ? -size : size;
}

// To nearest, ties to even; what is larger becomes 448.
inline uint8_t to_e4m3(float x) {
  if (std::isnan(x)) return 0x7f;
  const auto sign = static_cast<uint32_t>(std::signbit(x) ? 0x80 : 0);
  return static_cast<uint8_t>(sign | nearest_code(std::min(std::abs(x), 448.0F), 3, 7));
}
inline float from_e4m3(uint8_t x) {
  const uint32_t code = x & 0x7fU;
  const float size = code == 0x7f ? std::numeric_limits<float>::quiet_NaN() : value_of_code(code, 3, 7);
  return (x & 0x80U) != 0 ? -size : size;
}

inline uint8_t to_i8(float x) {
  return static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(std::fmin(127.0F, std::fmax(-127.0F, x)))));
}

// Element i of an array.
inline float load(ElementType type, const std::byte* array, size_t i) {
  if (element_bytes(type) == 1) {
    const auto x = std::to_integer<uint8_t>(array[i]);
    return type == ElementType::e4m3 ? from_e4m3(x) : static_cast<float>(static_cast<int8_t>(x));
  }
  uint16_t x;
  std::memcpy(&x, array + 2 * i, sizeof(x));
  return type == ElementType::f16 ? from_f16(x) : from_bf16(x);
}
inline void store(ElementType type, std::byte* array, size_t i, float x) {
  if (element_bytes(type) == 1) {
    array[i] = static_cast<std::byte>(type == ElementType::e4m3 ? to_e4m3(x) : to_i8(x));
    return;
  }
  const uint16_t code = type == ElementType::f16 ? to_f16(x) : to_bf16(x);
  std::memcpy(array + 2 * i, &code, sizeof(code));
}

}  // namespace bough::test
