// Softmax and softcap of tile.h in AVX-512. For bodies that are compiled for avx512_bf16.
#pragma once

// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace bough::cpu {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

// e^x for x <= 0, to about 2e-7 relative; e^-86 below -86. 2^n and 2^f with |f| <= 1/2: adding 1.5 * 2^23 leaves n in the low bits.
inline __m512 exp_negative(__m512 x) {
  const __m512 log2_e = _mm512_set1_ps(1.44269504088896341F);
  const __m512 shift = _mm512_set1_ps(12582912.0F);
  x = _mm512_max_ps(x, _mm512_set1_ps(-86.0F));
  const __m512 shifted = _mm512_fmadd_ps(x, log2_e, shift);
  const __m512 f = _mm512_fmsub_ps(x, log2_e, _mm512_sub_ps(shifted, shift));
  __m512 y = _mm512_set1_ps(1.32764713e-3F);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.67554096e-3F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.55071272e-2F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240221187F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.693146944F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0F));
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

// tanh|x| = (1 - e^-2|x|) / (1 + e^-2|x|).
inline void softcap(float* s, int64_t lds, int count, int keys, float cap) {
  const __m512 scale = _mm512_set1_ps(cap);
  const __m512 rate = _mm512_set1_ps(-2.0F / cap);
  const __m512 one = _mm512_set1_ps(1.0F);
  const __m512 sign = _mm512_set1_ps(-0.0F);
  for (int r = 0; r < count; ++r) {
    for (int j = 0; j < keys; j += 16) {
      const __m512 x = _mm512_loadu_ps(s + r * lds + j);
      const __m512 e = exp_negative(_mm512_mul_ps(rate, _mm512_andnot_ps(sign, x)));
      const __m512 t = _mm512_mul_ps(scale, _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)));
      _mm512_storeu_ps(s + r * lds + j, _mm512_or_ps(t, _mm512_and_ps(sign, x)));
    }
  }
}

// Scores [first, end) of a row, of which the others are hidden.
struct Seen {
  int first;
  int end;

  static __mmask16 below(int n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << std::max(0, n)) - 1); }
  __mmask16 lanes(int j) const { return static_cast<__mmask16>(below(end - j) & ~below(first - j)); }
};

inline float top_of(const float* row, int keys, Seen seen, float before) {
  __m512 top = _mm512_set1_ps(before);
  if (seen.first == 0 && seen.end == keys) {
    for (int j = 0; j < keys; j += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(row + j));
  } else {
    for (int j = 0; j < seen.end; j += 16) top = _mm512_mask_max_ps(top, seen.lanes(j), top, _mm512_loadu_ps(row + j));
  }
  return _mm512_reduce_max_ps(top);
}

// Weights of a row against its maximum, and their sum.
inline float weigh(const float* row, int keys, Seen seen, float high, uint16_t* out) {
  const __m512 base = _mm512_set1_ps(high);
  __m512 sum = _mm512_setzero_ps();
  const bool whole = seen.first == 0 && seen.end == keys;
  for (int j = 0; j < keys; j += 16) {
    __m512 e = exp_negative(_mm512_sub_ps(_mm512_loadu_ps(row + j), base));
    if (!whole) e = _mm512_maskz_mov_ps(seen.lanes(j), e);
    sum = _mm512_add_ps(sum, e);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(e)));
  }
  return _mm512_reduce_add_ps(sum);
}

// Up to 16 rows.
inline void softmax_rows(const float* s, int64_t lds, int count, int keys, const int* hidden, const int* visible, float* m, float* l,
                         float* alpha, uint16_t* p) {
  Seen seen[16];
  alignas(64) float high[16];
  for (int r = 0; r < count; ++r) {
    seen[r].end = std::clamp(visible[r], 0, keys);
    seen[r].first = hidden == nullptr ? 0 : std::clamp(hidden[r], 0, seen[r].end);
    high[r] = top_of(s + r * lds, keys, seen[r], m[r]);
  }
  const __mmask16 rows = Seen::below(count);
  const __m512 before = _mm512_maskz_loadu_ps(rows, m);
  const __m512 now = _mm512_maskz_load_ps(rows, high);
  const __mmask16 same = _mm512_cmp_ps_mask(before, now, _CMP_EQ_OQ);  // -inf too, where a row has seen nothing yet
  _mm512_mask_storeu_ps(alpha, rows, _mm512_mask_mov_ps(exp_negative(_mm512_sub_ps(before, now)), same, _mm512_set1_ps(1.0F)));
  _mm512_mask_storeu_ps(m, rows, now);
  for (int r = 0; r < count; ++r) {
    uint16_t* out = p + static_cast<int64_t>(r) * keys;
    if (seen[r].first == seen[r].end) {
      std::fill_n(out, keys, static_cast<uint16_t>(0));
    } else {
      l[r] = l[r] * alpha[r] + weigh(s + r * lds, keys, seen[r], high[r], out);
    }
  }
}

inline void softmax(const float* s, int64_t lds, int count, int keys, const int* hidden, const int* visible, float* m, float* l,
                    float* alpha, void* p) {
  for (int r = 0; r < count; r += 16) {
    softmax_rows(s + r * lds, lds, std::min(16, count - r), keys, hidden == nullptr ? nullptr : hidden + r, visible + r, m + r, l + r,
                 alpha + r, static_cast<uint16_t*>(p) + static_cast<int64_t>(r) * keys);
  }
}

#pragma GCC pop_options

}  // namespace bough::cpu
