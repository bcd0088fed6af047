// AVX-512 BF16 kernels: Highway 1.0.3 has no bf16 dot product. Sums of pairs in fp32 (vdpbf16ps).
#include "cpu/tile.h"

// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include <algorithm>
#include <type_traits>

#include "cpu/row_avx512.h"
#include "cpu/softmax_avx512.h"

namespace bough::cpu {
namespace {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

// 16 floats to bf16 in the low halves of 16 dwords.
inline __m512i round_to_dwords(__m512 x) { return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x))); }
inline __m512 low_halves(__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline __m512 high_halves(__m512i x) { return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000)))); }

void pack_rows(const float* x, int64_t count, DType /*round*/, void* rows) {
  auto* out = static_cast<uint16_t*>(rows);
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
    _mm512_storeu_si512(out + i, reinterpret_cast<__m512i>(both));
  }
  for (; i < count; i += 16) {
    const auto mask = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1 << (count - i)) - 1);
    _mm256_mask_storeu_epi16(out + i, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i))));
  }
}

// 16 x 16 dwords: row r of the result holds dword r of every input.
inline void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Elements (2i, 2i + 1) turn together: one dword.
inline __m512i turn_pair(__m512i x, const float* cos, const float* sin) {
  const __m512 c = _mm512_loadu_ps(cos);
  const __m512 s = _mm512_loadu_ps(sin);
  const __m512 a = low_halves(x);
  const __m512 b = high_halves(x);
  const __m512 ya = _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s));
  const __m512 yb = _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c));
  return _mm512_or_si512(round_to_dwords(ya), _mm512_slli_epi32(round_to_dwords(yb), 16));
}

// Elements (i, i + dims/2) turn together: dword k pairs with dword k + dims/4, for two angles. REQUIRES: dims a multiple of 4.
void turn_halves(int dims, const float* cos, const float* sin, uint32_t* tile) {
  for (int k = 0; k < dims / 4; ++k) {
    for (int lane = 0; lane < kTileKeys; lane += 16) {
      uint32_t* first = tile + k * kTileKeys + lane;
      uint32_t* second = first + dims / 4 * kTileKeys;
      const __m512i x = _mm512_loadu_si512(first);
      const __m512i y = _mm512_loadu_si512(second);
      __m512i out[2][2];
      for (int half = 0; half < 2; ++half) {
        const __m512 c = _mm512_loadu_ps(cos + (2 * k + half) * kTileKeys + lane);
        const __m512 s = _mm512_loadu_ps(sin + (2 * k + half) * kTileKeys + lane);
        const __m512 a = half == 0 ? low_halves(x) : high_halves(x);
        const __m512 b = half == 0 ? low_halves(y) : high_halves(y);
        out[0][half] = round_to_dwords(_mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        out[1][half] = round_to_dwords(_mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
      }
      _mm512_storeu_si512(first, _mm512_or_si512(out[0][0], _mm512_slli_epi32(out[0][1], 16)));
      _mm512_storeu_si512(second, _mm512_or_si512(out[1][0], _mm512_slli_epi32(out[1][1], 16)));
    }
  }
}

// The same where the halves meet inside a dword.
void turn_odd_halves(int dims, const float* cos, const float* sin, uint16_t* tile) {
  for (int i = 0; i < dims / 2; ++i) {
    const int j = i + dims / 2;
    for (int lane = 0; lane < kTileKeys; ++lane) {
      uint16_t& a = tile[(i / 2 * kTileKeys + lane) * 2 + i % 2];
      uint16_t& b = tile[(j / 2 * kTileKeys + lane) * 2 + j % 2];
      const float c = cos[i * kTileKeys + lane];
      const float s = sin[i * kTileKeys + lane];
      const float xa = from_bf16(a);
      const float xb = from_bf16(b);
      a = to_bf16(xa * c - xb * s);
      b = to_bf16(xa * s + xb * c);
    }
  }
}

template <DType type>
void pack_keys_of(const std::byte* const* keys, int d, const RopeParams& rope, const float* cos, const float* sin, uint32_t* tile) {
  const int pairs = d / 2;
  const int turning = cos != nullptr && rope.layout == RopeLayout::interleaved ? rope.dims / 2 : 0;
  for (int lane = 0; lane < kTileKeys; lane += 16) {
    for (int first = 0; first < d; first += kGroup * kGroups<type>) {
      __m512i x[16][kGroups<type>];
      for (int i = 0; i < 16; ++i) load_bf16<type>(keys[lane + i], d, first, x[i]);
      for (int g = 0; g < kGroups<type>; ++g) {
        const int base = first / 2 + g * 16;
        __m512i r[16];
        for (int i = 0; i < 16; ++i) r[i] = x[i][g];
        transpose(r);
        for (int i = 0; i < std::min(16, pairs - base); ++i) {
          const int at = (base + i) * kTileKeys + lane;
          _mm512_storeu_si512(tile + at, base + i < turning ? turn_pair(r[i], cos + at, sin + at) : r[i]);
        }
      }
    }
  }
  if (cos == nullptr || rope.layout != RopeLayout::halves) return;
  if (rope.dims % 4 == 0) {
    turn_halves(rope.dims, cos, sin, tile);
  } else {
    turn_odd_halves(rope.dims, cos, sin, reinterpret_cast<uint16_t*>(tile));
  }
}

// Elements of two rows side by side.
inline void store_pairs(__m256i a, __m256i b, uint32_t* out) {
  _mm512_storeu_si512(out, _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16)));
}

template <DType type>
void pack_values_of(const std::byte* const* values, int d, uint32_t* tile) {
  for (int k = 0; k < kTileKeys; k += 2, tile += padded(d)) {
    for (int first = 0; first < d; first += kGroup * kGroups<type>) {
      __m512i a[kGroups<type>], b[kGroups<type>];
      load_bf16<type>(values[k], d, first, a);
      load_bf16<type>(values[k + 1], d, first, b);
      for (int g = 0; g < kGroups<type> && first + g * kGroup < d; ++g) {
        uint32_t* out = tile + first + g * kGroup;
        store_pairs(_mm512_castsi512_si256(a[g]), _mm512_castsi512_si256(b[g]), out);
        store_pairs(_mm512_extracti64x4_epi64(a[g], 1), _mm512_extracti64x4_epi64(b[g], 1), out + 16);
      }
    }
  }
}

void pack_keys(const std::byte* const* keys, DType type, int d, const RopeParams& rope, const float* cos, const float* sin, void* out) {
  auto* tile = static_cast<uint32_t*>(out);
  if (type == DType::i8) return pack_keys_of<DType::i8>(keys, d, rope, cos, sin, tile);
  if (type == DType::i4) return pack_keys_of<DType::i4>(keys, d, rope, cos, sin, tile);
  pack_keys_of<DType::bf16>(keys, d, rope, cos, sin, tile);
}

void pack_values(const std::byte* const* values, DType type, int d, void* out) {
  auto* tile = static_cast<uint32_t*>(out);
  if (type == DType::i8) return pack_values_of<DType::i8>(values, d, tile);
  if (type == DType::i4) return pack_values_of<DType::i4>(values, d, tile);
  pack_values_of<DType::bf16>(values, d, tile);
}

inline __m512bh broadcast(const uint32_t* pair) { return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*pair))); }
inline __m512bh load(const uint32_t* pairs) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(pairs)); }

// acc[r][0..1] += rows r . 32 columns over `pairs` pairs. The sums stay in registers.
template <int R>
inline __attribute__((always_inline)) void multiply(const uint32_t* a, int64_t lda, int pairs, const uint32_t* b, int64_t ldb,
                                                    __m512 (&acc)[R][2]) {
  for (int k = 0; k < pairs; ++k) {
    const __m512bh b0 = load(b + k * ldb);
    const __m512bh b1 = load(b + k * ldb + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512bh x = broadcast(a + r * lda + k);
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
    }
  }
}

template <int R>
void scores_rows(const uint32_t* a, int d, const uint32_t* tile, float* s, int64_t lds) {
  __m512 acc[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
  multiply<R>(a, d / 2, d / 2, tile, kTileKeys, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(s + r * lds, acc[r][0]);
    _mm512_storeu_ps(s + r * lds + 16, acc[r][1]);
  }
}

template <int R>
void max_rows(const uint32_t* a, int d, const uint32_t* tile, float* best) {
  __m512 acc[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
  multiply<R>(a, d / 2, d / 2, tile, kTileKeys, acc);
  __m512 m0 = _mm512_loadu_ps(best);
  __m512 m1 = _mm512_loadu_ps(best + 16);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    m0 = _mm512_max_ps(m0, acc[r][0]);
    m1 = _mm512_max_ps(m1, acc[r][1]);
  }
  _mm512_storeu_ps(best, m0);
  _mm512_storeu_ps(best + 16, m1);
}

template <int R>
void accumulate_rows(const uint32_t* p, int64_t ldp, int keys, const uint32_t* v, int d, const float* alpha, float* o) {
  for (int c = 0; c < padded(d); c += 32) {
    __m512 acc[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(alpha[r]);
      acc[r][0] = _mm512_mul_ps(scale, _mm512_loadu_ps(o + r * padded(d) + c));
      acc[r][1] = _mm512_mul_ps(scale, _mm512_loadu_ps(o + r * padded(d) + c + 16));
    }
    multiply<R>(p, ldp, keys / 2, v + c, padded(d), acc);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      _mm512_storeu_ps(o + r * padded(d) + c, acc[r][0]);
      _mm512_storeu_ps(o + r * padded(d) + c + 16, acc[r][1]);
    }
  }
}

// Calls f(R, first row) for rows in blocks of 12, then for what is left.
constexpr int kRows = 12;
template <int R>
using Count = std::integral_constant<int, R>;

template <int R, typename F>
void last_rows(int count, int row, const F& f) {
  if constexpr (R > 0) {
    if (count == R) return f(Count<R>{}, row);
    last_rows<R - 1>(count, row, f);
  }
}
template <typename F>
void for_rows(int count, const F& f) {
  int row = 0;
  for (; row + kRows <= count; row += kRows) f(Count<kRows>{}, row);
  last_rows<kRows - 1>(count - row, row, f);
}

void scores(const void* rows, int count, int d, const void* tile, float* s, int64_t lds) {
  for_rows(count, [=]<int R>(Count<R>, int row) {
    scores_rows<R>(static_cast<const uint32_t*>(rows) + row * (d / 2), d, static_cast<const uint32_t*>(tile), s + row * lds, lds);
  });
}

void max_scores(const void* rows, int groups, int count, int d, const void* tile, float* best) {
  for (int g = 0; g < groups; ++g) {
    const uint32_t* group = static_cast<const uint32_t*>(rows) + static_cast<int64_t>(g) * count * (d / 2);
    for_rows(count, [=]<int R>(Count<R>, int row) {
      max_rows<R>(group + row * (d / 2), d, static_cast<const uint32_t*>(tile), best + g * kTileKeys);
    });
  }
}

void accumulate(const void* p, int count, int keys, const void* v_tiles, int d, const float* alpha, float* o) {
  for_rows(count, [=]<int R>(Count<R>, int row) {
    accumulate_rows<R>(static_cast<const uint32_t*>(p) + static_cast<int64_t>(row) * (keys / 2), keys / 2, keys,
                       static_cast<const uint32_t*>(v_tiles), d, alpha + row, o + static_cast<int64_t>(row) * padded(d));
  });
}

#pragma GCC pop_options

}  // namespace

const TileOps* tile_bf16() {
  static const TileOps ops{.name = "avx512_bf16",
                           .elem = sizeof(uint16_t),
                           .pass_rows = 24,
                           .pack_rows = pack_rows,
                           .pack_keys = pack_keys,
                           .pack_values = pack_values,
                           .scores = scores,
                           .max_scores = max_scores,
                           .softcap = softcap,
                           .softmax = softmax,
                           .accumulate = accumulate};
  static const bool runs = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                           __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                           __builtin_cpu_supports("avx512bf16") != 0;
  return runs ? &ops : nullptr;
}

}  // namespace bough::cpu
