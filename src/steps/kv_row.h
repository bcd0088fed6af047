// One row of the KV cache, a key or a value of one token and head, in any KV type:
//   f32, bf16   the elements
//   i8, i4      the codes of all elements, then a bf16 scale for each group of 32 of them, of 16 in i4 (the last group may be
//               smaller); i4 has elements 2i and 2i + 1 in the low and the high half of byte i, as code + 8, and after the scales the row's
//               place in its page, one byte.
// An element of i8 reads as code * scale rounded to bf16. A quantised row depends on its own elements and, in i4, on the pages before
// its own: no slice cut, rollback or neighbour changes a bit of it.
//
// Sixteen levels need help. Most of a key is the mean of all keys, which hardly moves along a text: the rows of a page and head are
// stored relative to the mean [d] of the page before as it reads back, zeros in the first page, which is kept as bf16 before them. What
// is left has channels that are far larger than the others and would take all levels of their group: it is transformed by a Hadamard
// matrix H before it is quantised, which spreads every channel over all; H is its own inverse up to a factor. So a row of i4 reads as
// mean + H (code * scale) rounded to bf16.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "steps/convert.h"
#include "steps/shape.h"

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
  const float largest = largest_magnitude(x, n);
  const bool finite = largest <= std::numeric_limits<float>::max();
  // With 16 levels, -8 on the largest element's side is worth having.
  float reach = largest / static_cast<float>(top);
  if (top < 16) {
    const float* first = std::find_if(x, x + n, [largest](float e) { return std::abs(e) == largest; });
    reach = -(first == x + n ? largest : *first) / static_cast<float>(top + 1);
  }
  const uint16_t scale = to_bf16(reach);
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

constexpr int groups_of(DType type, int n) { return (n + quant_group(type) - 1) / quant_group(type); }

// Where the codes and the scales of a block begin. REQUIRES: type is i8 or i4; first is a multiple of 128.
inline size_t codes_offset(DType type, int first) { return static_cast<size_t>(type == DType::i8 ? first : first / 2); }
inline size_t scales_offset(DType type, int d, int first) {
  return codes_offset(type, d) + static_cast<size_t>(groups_of(type, first)) * 2;
}

// The mean [d], as bf16, that a row of i4 is relative to.
inline const std::byte* mean_of(const std::byte* row, int d) {
  const size_t bytes = kv_row_bytes(DType::i4, d);
  return row - std::to_integer<size_t>(row[bytes - 1]) * bytes - kv_mean_bytes(DType::i4, d);
}

// Stores x [d] as row `place` of its page. REQUIRES: d is even; in i4 the page has its mean.
inline void store_row(const float* x, DType type, int d, int place, std::byte* row) {
  if (type == DType::f32) {
    std::memcpy(row, x, static_cast<size_t>(d) * sizeof(float));
    return;
  }
  if (type == DType::bf16) {
    for (int i = 0; i < d; ++i) store_element(row, static_cast<size_t>(i), DType::bf16, x[i]);
    return;
  }
  if (type == DType::i4) row[kv_row_bytes(type, d) - 1] = static_cast<std::byte>(place);
  const int size = hadamard_size(d);
  for (int first = 0; first < d; first += kRowBlock) {
    const int n = std::min(kRowBlock, d - first);
    float y[kRowBlock];
    std::copy_n(x + first, n, y);
    if (type == DType::i4) {
      const std::byte* mean = mean_of(row, d) + static_cast<ptrdiff_t>(first) * 2;
      for (int i = 0; i < n; ++i) y[i] = (y[i] - load_element(mean, static_cast<size_t>(i), DType::bf16)) / static_cast<float>(size);
      for (int half = 1; half < size; half *= 2) hadamard_stage(n, half, y);
    }
    int8_t codes[kRowBlock];
    uint16_t scales[kRowBlock / quant_group(DType::i4)];
    for (int g = 0; g < groups_of(type, n); ++g) {
      const int at = g * quant_group(type);
      scales[g] = quantise(y + at, std::min(quant_group(type), n - at), type == DType::i8 ? 127 : 7, codes + at);
    }
    std::byte* out = row + codes_offset(type, first);
    if (type == DType::i8) {
      std::memcpy(out, codes, static_cast<size_t>(n));
    } else {
      for (int i = 0; i < n; i += 2) out[i / 2] = static_cast<std::byte>((codes[i] + 8) | (codes[i + 1] + 8) << 4);
    }
    std::memcpy(row + scales_offset(type, d, first), scales, static_cast<size_t>(groups_of(type, n)) * 2);
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
  for (int half = 1; half < std::min(size, quant_group(type)); half *= 2) hadamard_stage(n, half, codes);
  for (int i = 0; i < n; ++i) {
    uint16_t scale;
    std::memcpy(&scale, row + scales_offset(type, d, first) + i / quant_group(type) * 2, sizeof(scale));
    out[i] = static_cast<float>(codes[i]) * from_bf16(scale);
  }
  for (int half = quant_group(type); half < size; half *= 2) hadamard_stage(n, half, out);
  if (type == DType::i4) {
    const std::byte* mean = mean_of(row, d) + static_cast<ptrdiff_t>(first) * 2;
    for (int i = 0; i < n; ++i) out[i] += load_element(mean, static_cast<size_t>(i), DType::bf16);
  }
  for (int i = 0; i < n; ++i) out[i] = rounded(out[i], DType::bf16);
}

inline void load_row(const std::byte* row, DType type, int d, float* out) {
  for (int first = 0; first < d; first += kRowBlock) load_block(row, type, d, first, out + first);
}

// Writes the mean that the rows of an i4 page are relative to: that of the page before, zeros if there is none. A channel that is not
// finite there counts as zero, so that it spoils no page but its own. `rows` and `before` are the first rows of the two pages.
inline void store_mean(const std::byte* before, int d, std::byte* rows) {
  std::byte* mean = rows - kv_mean_bytes(DType::i4, d);
  for (int first = 0; first < d; first += kRowBlock) {
    const int n = std::min(kRowBlock, d - first);
    float sum[kRowBlock] = {};
    for (int token = 0; before != nullptr && token < kPageTokens; ++token) {
      float x[kRowBlock];
      load_block(before + static_cast<size_t>(token) * kv_row_bytes(DType::i4, d), DType::i4, d, first, x);
      for (int i = 0; i < n; ++i) sum[i] += x[i];
    }
    for (int i = 0; i < n; ++i) {
      const float x = sum[i] / kPageTokens;
      store_element(mean, static_cast<size_t>(first) + static_cast<size_t>(i), DType::bf16, std::isfinite(x) ? x : 0.0F);
    }
  }
}

// Whether every row of the page knows its place, so that its mean is found. Pages that come from outside are to be asked.
inline bool places_hold(const KvShape& shape, const std::byte* page) {
  if (shape.type != DType::i4) return true;
  const size_t last = shape.row_bytes() - 1;
  for (int plane = 0; plane < 2 * shape.kv_heads * shape.layers; ++plane) {
    const std::byte* rows = page + static_cast<size_t>(plane) * shape.head_bytes() + kv_mean_bytes(shape.type, shape.head_dim);
    for (size_t place = 0; place < kPageTokens; ++place) {
      if (std::to_integer<size_t>(rows[place * shape.row_bytes() + last]) != place) return false;
    }
  }
  return true;
}

// Stores x [d] as the row of `token`. REQUIRES: the rows of the tokens before it are stored, as far as they lie in its page or, for the
// first token of a page, in the page before.
inline void store_token(const KvShape& shape, PageTable& pages, size_t plane, int64_t token, const float* x) {
  const int place = static_cast<int>(token % kPageTokens);
  std::byte* row = pages.row(token, plane, shape.row_bytes());
  if (shape.type == DType::i4 && place == 0) {
    store_mean(token == 0 ? nullptr : pages.row(token - kPageTokens, plane, shape.row_bytes()), shape.head_dim, row);
  }
  store_row(x, shape.type, shape.head_dim, place, row);
}

}  // namespace bough
