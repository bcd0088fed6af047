// Rows of the KV cache as bf16 in AVX-512 registers. For bodies that are compiled for avx512_bf16; see kv_row.h for the layout.
#pragma once

// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "steps/kv_row.h"

namespace bough::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

// y with y[i] + y[i ^ half], but in `upper`, the lanes with bit `half`, the difference the other way.
inline __m512i hadamard_stage(__m512i y, __m512i swapped, __mmask32 upper) {
  return _mm512_mask_sub_epi16(_mm512_add_epi16(y, swapped), upper, swapped, y);
}

// The stages of a Hadamard matrix of `size`, at most 16, within 32 int16.
inline __m512i hadamard(__m512i x, int size) {
  if (size > 1) x = hadamard_stage(x, _mm512_rol_epi32(x, 16), 0xaaaaaaaa);
  if (size > 2) x = hadamard_stage(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB), 0xcccccccc);
  if (size > 4) x = hadamard_stage(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC), 0xf0f0f0f0);
  if (size > 8) x = hadamard_stage(x, _mm512_shuffle_i64x2(x, x, 0xb1), 0xff00ff00);
  return x;
}

inline constexpr int kGroup = 32;  // elements of a register of bf16

// They as floats.
struct Group {
  __m512 a, b;
};

inline __m512 scale_at(const std::byte* scale) {
  uint16_t bits;
  std::memcpy(&bits, scale, sizeof(bits));
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(uint32_t{bits} << 16)));
}

inline Group scaled(__m512i codes, __m512 a, __m512 b) {
  return {_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(codes))), a),
          _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(codes, 1))), b)};
}

// 16 bf16 as floats.
inline __m512 widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

inline void butterfly(Group& x, Group& y) {
  const Group sum{_mm512_add_ps(x.a, y.a), _mm512_add_ps(x.b, y.b)};
  y = {_mm512_sub_ps(x.a, y.a), _mm512_sub_ps(x.b, y.b)};
  x = sum;
}

// How many groups of 32 elements are loaded at a time.
template <DType type>
constexpr int kGroups = type == DType::i4 ? kRowBlock / kGroup : 1;

// Elements [first, first + 32 * kGroups) of a row as bf16 in order; zero beyond d and for a null row.
template <DType type>
inline __attribute__((always_inline)) void load_bf16(const std::byte* row, int d, int first, __m512i* out) {
  __mmask32 mask[kGroups<type>];
  for (int g = 0; g < kGroups<type>; ++g) {
    const int n = row == nullptr ? 0 : std::clamp(d - first - g * kGroup, 0, kGroup);
    mask[g] = n == 0 ? 0 : 0xffffffffU >> (kGroup - n);
    out[g] = _mm512_setzero_si512();
  }
  if (row == nullptr) return;
  if constexpr (type == DType::bf16) {
    out[0] = _mm512_maskz_loadu_epi16(mask[0], row + static_cast<ptrdiff_t>(first) * 2);
  } else if constexpr (type == DType::i8) {
    const __m512i codes = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask[0], row + first));
    const __m512 scale = scale_at(row + d + first / kGroup * 2);
    const Group x = scaled(codes, scale, scale);
    out[0] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x.b, x.a));
  } else {
    const int size = hadamard_size(d);
    const std::byte* codes_at = row + codes_offset(type, first);
    const std::byte* scales_at = row + scales_offset(type, d, first);
    Group x[4];
    for (int g = 0; g < 4 && mask[g] != 0; ++g) {
      const int n = std::min(kGroup, d - first - g * kGroup);
      const auto bytes = static_cast<__mmask16>(0xffffU >> (16 - n / 2));
      const __m512i packed = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(bytes, codes_at + g * 16));
      const __m512i low = _mm512_and_si512(packed, _mm512_set1_epi32(0x0f));
      const __m512i high = _mm512_slli_epi32(_mm512_and_si512(packed, _mm512_set1_epi32(0xf0)), 12);
      const __m512i codes = hadamard(_mm512_sub_epi16(_mm512_or_si512(low, high), _mm512_set1_epi16(8)), size);
      x[g] = scaled(codes, scale_at(scales_at + g * 4), scale_at(scales_at + g * 4 + (n > 16 ? 2 : 0)));
      if (size > 16) x[g] = {_mm512_add_ps(x[g].a, x[g].b), _mm512_sub_ps(x[g].a, x[g].b)};
    }
    if (size > 32) {
      butterfly(x[0], x[1]);
      if (mask[2] != 0) butterfly(x[2], x[3]);
    }
    if (size > 64) {
      butterfly(x[0], x[2]);
      butterfly(x[1], x[3]);
    }
    const std::byte* mean = mean_of(row, d) + static_cast<ptrdiff_t>(first) * 2;
    for (int g = 0; g < 4 && mask[g] != 0; ++g) {
      const __m512i means = _mm512_maskz_loadu_epi16(mask[g], mean + static_cast<ptrdiff_t>(g) * kGroup * 2);
      x[g].a = _mm512_add_ps(x[g].a, widened(_mm512_castsi512_si256(means)));
      x[g].b = _mm512_add_ps(x[g].b, widened(_mm512_extracti64x4_epi64(means, 1)));
      out[g] = _mm512_maskz_mov_epi16(mask[g], reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[g].b, x[g].a)));
    }
  }
}

#pragma GCC pop_options

}  // namespace bough::cpu
