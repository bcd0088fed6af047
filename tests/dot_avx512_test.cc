// The AVX-512 body of decode's dot products by emulated instructions against the AVX2 body, on every CPU that has that; where there is
// AVX-512 VNNI, dot_interleaved_test runs the real one.
#include <ggml.h>
#include <gtest/gtest.h>
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "support/attention_case.h"
#include "support/weights.h"

namespace {

struct Bytes64 {
  alignas(64) uint8_t bytes[64];
  template <typename T>
  T get(size_t i) const {
    T x;
    std::memcpy(&x, bytes + i * sizeof(T), sizeof(T));
    return x;
  }
  template <typename T>
  void set(size_t i, T x) {
    std::memcpy(bytes + i * sizeof(T), &x, sizeof(T));
  }
};

template <typename T>
T of(const Bytes64& x, size_t i) {
  return x.get<T>(i);
}
template <typename T, typename F>
Bytes64 lanes(const F& f) {
  Bytes64 y{};
  for (size_t i = 0; i < 64 / sizeof(T); ++i) y.set<T>(i, f(i));
  return y;
}
Bytes64 load(const void* p) {
  Bytes64 y;
  std::memcpy(y.bytes, p, 64);
  return y;
}
// Four products of bytes without and with a sign, summed, for each word.
Bytes64 multiply_add(const Bytes64& sums, const Bytes64& a, const Bytes64& b) {
  return lanes<int32_t>([&](size_t i) {
    int32_t sum = sums.get<int32_t>(i);
    for (size_t j = 4 * i; j < 4 * i + 4; ++j) sum += a.get<uint8_t>(j) * b.get<int8_t>(j);
    return sum;
  });
}

}  // namespace

#undef _mm512_srli_epi16
#define __m512 Bytes64
#define __m512i Bytes64
#define _mm512_setzero_ps() \
  Bytes64 {}
#define _mm512_setzero_si512() \
  Bytes64 {}
#define _mm512_loadu_si512(p) load(p)
#define _mm512_storeu_ps(p, x) std::memcpy(p, (x).bytes, 64)
#define _mm512_set1_epi8(x) lanes<int8_t>([&](size_t) { return static_cast<int8_t>(x); })
#define _mm512_set1_epi32(x) lanes<int32_t>([&](size_t) { return static_cast<int32_t>(x); })
#define _mm512_set1_ps(x) lanes<float>([&](size_t) { return static_cast<float>(x); })
#define _mm512_xor_si512(a, b) lanes<uint8_t>([&](size_t i) { return of<uint8_t>(a, i) ^ of<uint8_t>(b, i); })
#define _mm512_and_si512(a, b) lanes<uint8_t>([&](size_t i) { return of<uint8_t>(a, i) & of<uint8_t>(b, i); })
#define _mm512_srli_epi16(a, n) lanes<uint16_t>([&](size_t i) { return static_cast<uint16_t>(of<uint16_t>(a, i) >> (n)); })
#define _mm512_add_epi32(a, b) lanes<int32_t>([&](size_t i) { return of<int32_t>(a, i) + of<int32_t>(b, i); })
#define _mm512_mul_ps(a, b) lanes<float>([&](size_t i) { return of<float>(a, i) * of<float>(b, i); })
#define _mm512_fmadd_ps(a, b, c) lanes<float>([&](size_t i) { return std::fma(of<float>(a, i), of<float>(b, i), of<float>(c, i)); })
#define _mm512_cvtepi32_ps(a) lanes<float>([&](size_t i) { return static_cast<float>(of<int32_t>(a, i)); })
#define _mm512_dpbusd_epi32(c, a, b) multiply_add(c, a, b)
#define _mm512_cvtph_ps(h)                                                       \
  [&] {                                                                          \
    uint16_t halves[16];                                                         \
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves), h);                  \
    return lanes<float>([&](size_t i) { return ggml_fp16_to_fp32(halves[i]); }); \
  }()
#define BOUGH_EMULATED_AVX512
#include "cpu/dot_interleaved.cc"  // NOLINT: for the functions that it keeps to itself

namespace bough::cpu {
namespace {

using test::random_rows;
using test::RandomMatrix;

template <Codes c>
void expect_same_bits(int type) {
  for (const int64_t k : {32, 96, 576}) {
    const RandomMatrix matrix(type, 40, k, 1);
    const Tensor w = matrix.tensor();
    std::vector<std::byte> weights(interleaved_bytes(w));
    interleave(w, weights.data());
    const Group g = group_of(w);
    const std::vector<float> x = random_rows(3, k, 2);
    const RoundedRows rows(x.data(), 3, k);
    for (size_t group = 0; group < 3; ++group) {
      for (int64_t t = 0; t < 3; ++t) {
        std::vector<float> y(16, 7.0F), same(16);
        dot_avx512<c>(g, weights.data() + group * g.bytes(), rows.row(t), y.data());
        dot_avx2<c>(g, weights.data() + group * g.bytes(), rows.row(t), same.data());
        ASSERT_TRUE(test::same_bits(y, same)) << test::type_name(type) << ", K " << k << ", group " << group << ", row " << t;
      }
    }
  }
}

TEST(DotAvx512, HasTheBitsOfAvx2) {
  if (!interleaves(GGML_TYPE_Q4_1)) GTEST_SKIP() << "this CPU has no AVX2";
  expect_same_bits<Codes::q4_0>(GGML_TYPE_Q4_0);
  expect_same_bits<Codes::q4_1>(GGML_TYPE_Q4_1);
  expect_same_bits<Codes::q8_0>(GGML_TYPE_Q8_0);
}

}  // namespace
}  // namespace bough::cpu
