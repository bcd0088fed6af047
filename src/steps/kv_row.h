// One row of the KV cache, a key or a value of one token and head, in any KV type:
//   f32, bf16   the elements
//   i8, i4      the codes of all elements, then a bf16 scale for each group of 32 of them (the last group may be smaller);
//               i4 has elements 2i and 2i + 1 in the low and the high half of byte i, as code + 8.
// An element reads as code * scale rounded to bf16. A quantised row depends on its own elements alone: no slice cut, rollback or
// neighbour changes a bit of it.
//
// A few channels of a key are far larger than the others and would take all 16 levels of their group. So a row of i4 is transformed by
// a Hadamard matrix H before it is quantised, which spreads every channel over all; H is its own inverse up to a factor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "steps/convert.h"

namespace bough {

// Elements of a row that are stored and loaded together; no Hadamard matrix reaches across.
inline constexpr int kRowBlock = 128;

// Elements that one Hadamard matrix takes in rows of d: the largest power of two that divides d, at most 128.
constexpr int hadamard_size(int d) { return std::min(kRowBlock, d & -d); }

// One stage of x [n] = H x: sums and differences of elements `half` apart.
template <typename T>
inline void hadamard_stage(int n, int half, T* x) {
  for (int i = 0; i < n; i += 2 * half) {
    for (int j = i; j < i + half; ++j) {
      const T a = x[j], b = x[j + half];
      x[j] = static_cast<T>(a + b);
      x[j + half] = static_cast<T>(a - b);
    }
  }
}

// Codes [n] of x, at most `top` and at least -top - 1, and their scale as bf16. A group with an element that is not finite reads as NaN.
inline uint16_t quantise(const float* x, int n, int top, int8_t* codes) {
  constexpr float rounder = 12582912.0F;  // 1.5 * 2^23: adding and taking it away rounds to the nearest integer, to even
  float largest = 0;
  float signed_largest = 0;
  bool finite = true;
  for (int i = 0; i < n; ++i) {
    finite = finite && std::abs(x[i]) <= std::numeric_limits<float>::max();
    if (std::abs(x[i]) > largest) {
      largest = std::abs(x[i]);
      signed_largest = x[i];
    }
  }
  // With 16 levels, -8 on the largest element's side is worth having.
  const uint16_t scale = to_bf16(top < 16 ? -signed_largest / static_cast<float>(top + 1) : largest / static_cast<float>(top));
  const float inverse = 1.0F / from_bf16(scale);
  if (!finite || !(std::abs(inverse) <= std::numeric_limits<float>::max())) {
    std::fill_n(codes, n, int8_t{0});
    return finite ? uint16_t{0} : to_bf16(std::numeric_limits<float>::quiet_NaN());
  }
  const auto most = static_cast<float>(top);
  for (int i = 0; i < n; ++i) {
    const float code = (x[i] * inverse + rounder) - rounder;
    codes[i] = static_cast<int8_t>(static_cast<int>(std::min(most, std::max(-most - 1, code))));
  }
  return scale;
}

constexpr int groups_of(int n) { return (n + kQuantGroup - 1) / kQuantGroup; }

// Where the codes and the scales of a block begin. REQUIRES: type is i8 or i4; first is a multiple of 128.
inline size_t codes_offset(DType type, int first) { return static_cast<size_t>(type == DType::i8 ? first : first / 2); }
inline size_t scales_offset(DType type, int d, int first) { return codes_offset(type, d) + static_cast<size_t>(groups_of(first)) * 2; }

// Stores x [d]. d is even.
inline void store_row(const float* x, DType type, int d, std::byte* row) {
  if (type == DType::f32 || type == DType::bf16) {
    for (int i = 0; i < d; ++i) store_element(row, static_cast<size_t>(i), type, x[i]);
    return;
  }
  const int size = hadamard_size(d);
  for (int first = 0; first < d; first += kRowBlock) {
    const int n = std::min(kRowBlock, d - first);
    float y[kRowBlock];
    std::copy_n(x + first, n, y);
    if (type == DType::i4) {
      for (int i = 0; i < n; ++i) y[i] /= static_cast<float>(size);
      for (int half = 1; half < size; half *= 2) hadamard_stage(n, half, y);
    }
    int8_t codes[kRowBlock];
    uint16_t scales[kRowBlock / kQuantGroup];
    for (int g = 0; g < groups_of(n); ++g) {
      const int at = g * kQuantGroup;
      scales[g] = quantise(y + at, std::min(kQuantGroup, n - at), type == DType::i8 ? 127 : 7, codes + at);
    }
    std::byte* out = row + codes_offset(type, first);
    if (type == DType::i8) {
      std::memcpy(out, codes, static_cast<size_t>(n));
    } else {
      for (int i = 0; i < n; i += 2) out[i / 2] = static_cast<std::byte>((codes[i] + 8) | (codes[i + 1] + 8) << 4);
    }
    std::memcpy(row + scales_offset(type, d, first), scales, static_cast<size_t>(groups_of(n)) * 2);
  }
}

// Elements [first, first + 128) of a row, or up to d. REQUIRES: first is a multiple of 128.
inline void load_block(const std::byte* row, DType type, int d, int first, float* out) {
  const int n = std::min(kRowBlock, d - first);
  if (type == DType::f32 || type == DType::bf16) {
    for (int i = 0; i < n; ++i) out[i] = load_element(row, static_cast<size_t>(first) + static_cast<size_t>(i), type);
    return;
  }
  const std::byte* stored = row + codes_offset(type, first);
  int16_t codes[kRowBlock];
  if (type == DType::i8) {
    for (int i = 0; i < n; ++i) codes[i] = static_cast<int16_t>((std::to_integer<int>(stored[i]) ^ 0x80) - 0x80);
  } else {
    for (int i = 0; i < n; i += 2) {
      const int byte = std::to_integer<int>(stored[i / 2]);
      codes[i] = static_cast<int16_t>((byte & 15) - 8);
      codes[i + 1] = static_cast<int16_t>((byte >> 4) - 8);
    }
  }
  const int size = type == DType::i4 ? hadamard_size(d) : 1;
  for (int half = 1; half < std::min(size, kQuantGroup); half *= 2) hadamard_stage(n, half, codes);
  for (int i = 0; i < n; ++i) {
    uint16_t scale;
    std::memcpy(&scale, row + scales_offset(type, d, first) + i / kQuantGroup * 2, sizeof(scale));
    out[i] = static_cast<float>(codes[i]) * from_bf16(scale);
  }
  for (int half = kQuantGroup; half < size; half *= 2) hadamard_stage(n, half, out);
  for (int i = 0; i < n; ++i) out[i] = rounded(out[i], DType::bf16);
}

inline void load_row(const std::byte* row, DType type, int d, float* out) {
  for (int first = 0; first < d; first += kRowBlock) load_block(row, type, d, first, out + first);
}

}  // namespace bough
