// A group is the 16 features' scales of all blocks of 32 elements, then their minima where the type has such, then for each block their
// codes: four bytes of each feature in turn. Both instruction sets read it: 16 features by AVX-512 VNNI, twice 8 by AVX2.
#include "cpu/dot_interleaved.h"

// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <ggml.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "steps/convert.h"

namespace bough::cpu {
namespace {

constexpr int64_t kBlock = 32;     // elements that share a scale
constexpr size_t kChunk = 4;       // bytes of a feature that lie together
constexpr size_t kHalfBytes = 32;  // of 16 scales or minima
constexpr size_t kAhead = 3072;    // bytes that are fetched ahead

// How a type's block lies in the file: f16 scale, f16 minimum or none, then codes.
enum class Codes : uint8_t { q4_0, q4_1, q8_0 };

constexpr size_t halves_of(Codes c) { return c == Codes::q4_1 ? 2 : 1; }
constexpr size_t chunks_of(Codes c) { return c == Codes::q8_0 ? 8 : 4; }
constexpr size_t file_block(Codes c) { return 2 * halves_of(c) + kChunk * chunks_of(c); }

struct Group {
  size_t blocks;
  Codes codes;

  size_t half_bytes() const { return (blocks * kHalfBytes + 63) / 64 * 64; }
  size_t code_bytes() const { return kInterleaved * kChunk * chunks_of(codes); }  // of a block
  size_t codes_at() const { return half_bytes() * halves_of(codes); }
  size_t bytes() const { return codes_at() + blocks * code_bytes(); }
};

Codes codes_of(int type) { return type == GGML_TYPE_Q8_0 ? Codes::q8_0 : type == GGML_TYPE_Q4_1 ? Codes::q4_1 : Codes::q4_0; }
Group group_of(const Tensor& w) { return {static_cast<size_t>(w.cols / kBlock), codes_of(w.type)}; }

void interleave_group(const Tensor& w, const Group& g, int64_t first, std::byte* out) {
  std::memset(out, 0, g.bytes());
  const auto features = static_cast<size_t>(std::min(kInterleaved, w.rows - first));
  const size_t halves = halves_of(g.codes);
  for (size_t f = 0; f < features; ++f) {
    const auto* from = static_cast<const std::byte*>(w.data) + (static_cast<size_t>(first) + f) * w.row_bytes;
    for (size_t b = 0; b < g.blocks; ++b, from += file_block(g.codes)) {
      for (size_t h = 0; h < halves; ++h) std::memcpy(out + h * g.half_bytes() + b * kHalfBytes + f * 2, from + h * 2, 2);
      std::byte* codes = out + g.codes_at() + b * g.code_bytes() + f * kChunk;
      for (size_t c = 0; c < chunks_of(g.codes); ++c)
        std::memcpy(codes + c * kInterleaved * kChunk, from + 2 * halves + c * kChunk, kChunk);
    }
  }
}

// Of the last group this lies behind the weights: an address only.
inline void fetch_ahead(const std::byte* codes, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) {
    const auto address = reinterpret_cast<uintptr_t>(codes) + kAhead + i;
    _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0);  // NOLINT(performance-no-int-to-ptr): see above
  }
}

inline int32_t chunk_at(const int8_t* codes) {
  int32_t chunk;
  std::memcpy(&chunk, codes, sizeof(chunk));
  return chunk;
}

// What is to be taken off a block's sum: codes of q4_0 stand 8 above their values.
template <Codes c>
inline int32_t excess(int32_t sum) {
  return c == Codes::q4_0 ? 8 * sum : 0;
}

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

inline __m256 halves_at(const std::byte* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline __m256i load_256(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// 8 features of 16. Products of 4-bit codes stay below 2^15 over a whole block; those of 8 bits in pairs.
template <Codes c>
inline __m256i block_sums(const std::byte* codes, const int8_t* x) {
  const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
  __m256i sums = _mm256_setzero_si256();
  for (size_t i = 0; i < chunks_of(c); ++i) {
    const __m256i w = load_256(codes + i * kInterleaved * kChunk);
    const __m256i near = _mm256_set1_epi32(chunk_at(x + i * kChunk));
    if constexpr (c == Codes::q8_0) {
      const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(near, w));
      sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, ones));
    } else {
      const __m256i far = _mm256_set1_epi32(chunk_at(x + kBlock / 2 + i * kChunk));
      const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(w, low), near);
      const __m256i second = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w, 4), low), far);
      sums = _mm256_add_epi16(sums, _mm256_add_epi16(first, second));
    }
  }
  return c == Codes::q8_0 ? sums : _mm256_madd_epi16(sums, ones);
}

template <Codes c>
void dot_avx2(const Group& g, const std::byte* group, const RoundedRows::Row& x, float* out) {
  const std::byte* codes = group + g.codes_at();
  const std::byte* minima = group + g.half_bytes();
  __m256 y[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (size_t b = 0; b < g.blocks; ++b, codes += g.code_bytes()) {
    fetch_ahead(codes, g.code_bytes());
    const __m256 scale = _mm256_set1_ps(x.scales[b]);
    const __m256i off = _mm256_set1_epi32(excess<c>(x.sums[b]));
    for (size_t side = 0; side < 2; ++side) {
      const __m256i sums = _mm256_sub_epi32(block_sums<c>(codes + side * 32, x.codes + b * kBlock), off);
      const __m256 d = _mm256_mul_ps(halves_at(group + b * kHalfBytes + side * 16), scale);
      y[side] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), d, y[side]);
      if constexpr (c == Codes::q4_1) {
        const __m256 sum = _mm256_set1_ps(x.scales[b] * static_cast<float>(x.sums[b]));
        y[side] = _mm256_fmadd_ps(halves_at(minima + b * kHalfBytes + side * 16), sum, y[side]);
      }
    }
  }
  _mm256_storeu_ps(out, y[0]);
  _mm256_storeu_ps(out + 8, y[1]);
}

#pragma GCC pop_options
#pragma GCC push_options
#ifdef BOUGH_EMULATED_AVX512  // tests/dot_avx512_test.cc, which runs on any CPU with AVX2
#pragma GCC target("avx2,fma,f16c")
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")
#endif

inline __m512 halves_512(const std::byte* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

template <Codes c>
void dot_avx512(const Group& g, const std::byte* group, const RoundedRows::Row& x, float* out) {
  const std::byte* codes = group + g.codes_at();
  const std::byte* minima = group + g.half_bytes();
  const __m512i low = _mm512_set1_epi8(15), top = _mm512_set1_epi8(-128);
  __m512 y = _mm512_setzero_ps();
  for (size_t b = 0; b < g.blocks; ++b, codes += g.code_bytes()) {
    fetch_ahead(codes, g.code_bytes());
    const int8_t* of_x = x.codes + b * kBlock;
    // The instruction's left codes have no sign: those of q8_0 are multiplied with 128 added.
    __m512i sums = _mm512_set1_epi32(c == Codes::q8_0 ? -128 * x.sums[b] : -excess<c>(x.sums[b])), others = _mm512_setzero_si512();
    for (size_t i = 0; i < chunks_of(c); ++i) {
      const __m512i w = _mm512_loadu_si512(codes + i * kInterleaved * kChunk);
      const __m512i near = _mm512_set1_epi32(chunk_at(of_x + i * kChunk));
      if constexpr (c == Codes::q8_0) {
        __m512i& into = i % 2 == 0 ? sums : others;
        into = _mm512_dpbusd_epi32(into, _mm512_xor_si512(w, top), near);
      } else {
        sums = _mm512_dpbusd_epi32(sums, _mm512_and_si512(w, low), near);
        const __m512i far = _mm512_set1_epi32(chunk_at(of_x + kBlock / 2 + i * kChunk));
        others = _mm512_dpbusd_epi32(others, _mm512_and_si512(_mm512_srli_epi16(w, 4), low), far);
      }
    }
    const __m512 d = _mm512_mul_ps(halves_512(group + b * kHalfBytes), _mm512_set1_ps(x.scales[b]));
    y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sums, others)), d, y);
    if constexpr (c == Codes::q4_1) {
      y = _mm512_fmadd_ps(halves_512(minima + b * kHalfBytes), _mm512_set1_ps(x.scales[b] * static_cast<float>(x.sums[b])), y);
    }
  }
  _mm512_storeu_ps(out, y);
}

#pragma GCC pop_options

enum class Set : uint8_t { none, avx2, avx512_vnni };

Set set_of_cpu() {
  static const Set set = [] {
    if (__builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
        __builtin_cpu_supports("avx512dq") != 0)
      return Set::avx512_vnni;
    // Whoever has AVX2 and FMA has F16C.
    const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    return avx2 ? Set::avx2 : Set::none;
  }();
  return set;
}

template <Codes c>
void dot_of(const Group& g, const std::byte* group, const RoundedRows::Row& x, float* out) {
  if (set_of_cpu() == Set::avx512_vnni) return dot_avx512<c>(g, group, x, out);
  dot_avx2<c>(g, group, x, out);
}

// Codes of 32 elements, their sum, and the scale that they are to be multiplied by.
float round_block(const float* x, int8_t* codes, int32_t& sum) {
  constexpr float rounder = 12582912.0F;  // 1.5 * 2^23: adding and taking it away rounds to the nearest integer, to even
  const float largest = largest_magnitude(x, kBlock);
  const float inverse = 127.0F / largest;
  sum = 0;
  if (!(largest <= std::numeric_limits<float>::max()) || !(inverse <= std::numeric_limits<float>::max())) {
    std::fill_n(codes, kBlock, int8_t{0});
    return largest <= std::numeric_limits<float>::max() ? 0.0F : std::numeric_limits<float>::quiet_NaN();
  }
  for (int i = 0; i < kBlock; ++i) {
    const auto code = static_cast<int32_t>((x[i] * inverse + rounder) - rounder);
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  return largest / 127.0F;
}

}  // namespace

bool interleaves(int ggml_type) {
  return set_of_cpu() != Set::none && (ggml_type == GGML_TYPE_Q4_0 || ggml_type == GGML_TYPE_Q4_1 || ggml_type == GGML_TYPE_Q8_0);
}

size_t interleaved_bytes(const Tensor& w) { return static_cast<size_t>((w.rows + kInterleaved - 1) / kInterleaved) * group_of(w).bytes(); }

void interleave(const Tensor& w, std::byte* out) {
  const Group g = group_of(w);
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < w.rows; first += kInterleaved) {
    interleave_group(w, g, first, out + static_cast<size_t>(first / kInterleaved) * g.bytes());
  }
}

RoundedRows::RoundedRows(const float* x, int64_t rows, int64_t cols)
    : cols_(cols), codes_(static_cast<size_t>(rows * cols)), scales_(static_cast<size_t>(rows * cols / kBlock)), sums_(scales_.size()) {
  for (size_t b = 0; b < scales_.size(); ++b) {
    scales_[b] = round_block(x + b * kBlock, codes_.data() + b * kBlock, sums_[b]);
  }
}

void dot_group(const Tensor& w, const std::byte* interleaved, int64_t group, const RoundedRows::Row& x, float* out) {
  const Group g = group_of(w);
  const std::byte* at = interleaved + static_cast<size_t>(group) * g.bytes();
  switch (g.codes) {
    case Codes::q4_0: return dot_of<Codes::q4_0>(g, at, x, out);
    case Codes::q4_1: return dot_of<Codes::q4_1>(g, at, x, out);
    case Codes::q8_0: return dot_of<Codes::q8_0>(g, at, x, out);
  }
}

}  // namespace bough::cpu
