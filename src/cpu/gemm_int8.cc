// AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so the codes of W are stored with 128 added, and sums of a group begin at
// -128 times the sum of the row's codes.
#include "cpu/gemm_int8.h"

// GCC 12 takes the undefined operands inside its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <ggml.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/packed_weights.h"
#include "cpu/scratch.h"

namespace bough::cpu {
namespace {

constexpr int64_t kPanel = 32;  // output features of a panel: two registers
constexpr int64_t kTile = 96;   // rows that a thread takes through a panel at once
constexpr int kBlock = 6;       // rows whose sums stay in registers
constexpr int64_t kQuad = 4;    // codes of a row that one lane multiplies

int64_t groups_of(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

// Rows of x.
struct Rows {
  int8_t* codes;    // [rows][k]
  float* scales;    // [rows][groups]
  int32_t* starts;  // [rows][groups], -128 times the sum of the group's codes
};

// 32 output features; features beyond W's are zero.
struct Panel {
  uint8_t* codes;  // [k / 4][32 features][4], with 128 added
  float* scales;   // [groups][32]

  Panel(std::byte* panel, int64_t k) : codes(reinterpret_cast<uint8_t*>(panel)), scales(reinterpret_cast<float*>(panel + kPanel * k)) {}
  static size_t bytes(int64_t k) { return static_cast<size_t>(kPanel * k + kPanel * groups_of(k) * static_cast<int64_t>(sizeof(float))); }
};

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")

// x[i] + x[i ^ distance], but in `upper`, the lanes with bit `distance`, the difference the other way.
inline __m512 hadamard_stage(__m512 x, __m512 swapped, __mmask16 upper) {
  return _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), upper, swapped, x);
}

// The product with a Hadamard matrix of 16 * R, without its factor.
template <int R>
inline void hadamard(__m512 (&x)[R]) {
  for (__m512& v : x) {
    v = hadamard_stage(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
    v = hadamard_stage(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
    v = hadamard_stage(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
    v = hadamard_stage(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
  }
  for (int distance = 1; distance < R; distance *= 2) {
    for (int i = 0; i < R; ++i) {
      if ((i & distance) != 0) continue;
      const __m512 a = x[i], b = x[i + distance];
      x[i] = _mm512_add_ps(a, b);
      x[i + distance] = _mm512_sub_ps(a, b);
    }
  }
}

// Codes and scale of a group of 16 * R elements; the answer is the sum of the codes. Magnitudes are compared as integers, where NaN is
// the largest.
template <int R>
inline int32_t quantise_group(const float* from, int8_t* codes, float& scale) {
  __m512 x[R];
  for (int i = 0; i < R; ++i) x[i] = _mm512_loadu_ps(from + 16 * i);
  hadamard(x);
  const __m512 factor = _mm512_set1_ps(int8_turn_factor(16 * R));
  __m512i top = _mm512_setzero_si512();
  for (__m512& v : x) {
    v = _mm512_mul_ps(v, factor);
    top = _mm512_max_epi32(top, _mm512_castps_si512(_mm512_abs_ps(v)));
  }
  const auto high = std::bit_cast<float>(_mm512_reduce_max_epi32(top));
  scale = high * (1.0F / kInt8Top);
  const __m512 inverse = _mm512_set1_ps(high >= kInt8Least ? kInt8Top / high : 0.0F);
  __m512i sum = _mm512_setzero_si512();
  for (int i = 0; i < R; ++i) {
    const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x[i], inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * i), _mm512_cvtepi32_epi8(code));
    sum = _mm512_add_epi32(sum, code);
  }
  return _mm512_reduce_add_epi32(sum);
}

// A row of k elements, k a multiple of 32. sums [groups] may be null.
void quantise(const float* x, int64_t k, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t at = g * kInt8Group;
    const auto group = k - at < kInt8Group ? quantise_group<2> : quantise_group<4>;
    const int32_t sum = group(x + at, codes + at, scales[g]);
    if (sums != nullptr) sums[g] = sum;
  }
}

// R rows from `row` on times a panel; features [0, count) of the panel go to y.
template <int R>
void multiply_rows(const LinearArgs& a, const Rows& x, const Panel& w, int64_t row, int64_t feature) {
  const int64_t k = a.w.cols, groups = groups_of(k), count = a.w.rows - feature;
  const float* scales = x.scales + row * groups;
  const int32_t* starts = x.starts + row * groups;
  __m512 y[R][2];
  for (int r = 0; r < R; ++r) y[r][0] = y[r][1] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    const int8_t* x_codes = x.codes + row * k + g * kInt8Group;
    const uint8_t* w_codes = w.codes + g * kInt8Group * kPanel;
    __m512i sum[R][2];
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_set1_epi32(starts[r * groups + g]);
    const int64_t end = std::min(kInt8Group, k - g * kInt8Group);
    for (int64_t i = 0; i < end; i += kQuad) {
      const __m512i w0 = _mm512_loadu_si512(w_codes + i * kPanel);
      const __m512i w1 = _mm512_loadu_si512(w_codes + i * kPanel + 64);
      for (int r = 0; r < R; ++r) {
        int32_t quad;
        std::memcpy(&quad, x_codes + r * k + i, sizeof(quad));
        const __m512i xr = _mm512_set1_epi32(quad);
        sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], w0, xr);
        sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], w1, xr);
      }
    }
    const __m512 s0 = _mm512_loadu_ps(w.scales + g * kPanel);
    const __m512 s1 = _mm512_loadu_ps(w.scales + g * kPanel + 16);
    for (int r = 0; r < R; ++r) {
      const __m512 s = _mm512_set1_ps(scales[r * groups + g]);
      y[r][0] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][0]), s0), s, y[r][0]);
      y[r][1] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][1]), s1), s, y[r][1]);
    }
  }
  for (int half = 0; half < 2; ++half) {
    const int64_t left = count - 16 * half;
    if (left <= 0) return;
    const auto lanes = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
    const __m512 bias = a.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, a.bias + feature + 16 * half);
    for (int r = 0; r < R; ++r) {
      float* out = a.y + (row + r) * a.w.rows + feature + 16 * half;
      const __m512 result = _mm512_add_ps(y[r][half], bias);
      _mm512_mask_storeu_ps(out, lanes, a.add ? _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, out), result) : result);
    }
  }
}

#pragma GCC pop_options

// Rows [first, end) in blocks whose size does not change a row's bits.
void multiply(const LinearArgs& a, const Rows& x, const Panel& w, int64_t first, int64_t end, int64_t feature) {
  for (; first + kBlock <= end; first += kBlock) multiply_rows<kBlock>(a, x, w, first, feature);
  switch (end - first) {
    case 5: return multiply_rows<5>(a, x, w, first, feature);
    case 4: return multiply_rows<4>(a, x, w, first, feature);
    case 3: return multiply_rows<3>(a, x, w, first, feature);
    case 2: return multiply_rows<2>(a, x, w, first, feature);
    case 1: return multiply_rows<1>(a, x, w, first, feature);
    default: return;
  }
}

// Output features [feature, feature + 32) of W. row [k] and codes [k] are working space.
void fill_panel(const Tensor& w, int64_t feature, const Panel& panel, float* row, int8_t* codes, float* scales) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(w.type))->to_float;
  std::fill_n(panel.codes, kPanel * w.cols, uint8_t{128});
  std::fill_n(panel.scales, kPanel * groups_of(w.cols), 0.0F);
  for (int64_t n = 0; n < std::min(kPanel, w.rows - feature); ++n) {
    to_float(static_cast<const std::byte*>(w.data) + static_cast<size_t>(feature + n) * w.row_bytes, row, w.cols);
    quantise(row, w.cols, codes, scales, nullptr);
    for (int64_t i = 0; i < w.cols; i += kQuad) {
      for (int64_t j = 0; j < kQuad; ++j) panel.codes[i * kPanel + n * kQuad + j] = static_cast<uint8_t>(codes[i + j] + 128);
    }
    for (int64_t g = 0; g < groups_of(w.cols); ++g) panel.scales[g * kPanel + n] = scales[g];
  }
}

std::byte* packed_panels(const LinearArgs& a, int64_t panels, PackedWeights& store) {
  const int64_t k = a.w.cols;
  return store.get(a.w.data, Panel::bytes(k) * static_cast<size_t>(panels), [&](std::byte* base) {
    const auto working_space = [k](std::byte* from, auto&& use) {
      Carver carve(from);
      auto* row = carve.take<float>(k);
      auto* codes = carve.take<int8_t>(k);
      use(row, codes, carve.take<float>(groups_of(k)));
      return carve.used();
    };
    const Scratch scratch(working_space(nullptr, [](auto...) {}));
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < panels; ++p) {
      const Panel panel(base + static_cast<size_t>(p) * Panel::bytes(k), k);
      working_space(scratch.mine(),
                    [&](float* row, int8_t* codes, float* scales) { fill_panel(a.w, p * kPanel, panel, row, codes, scales); });
    }
  });
}

size_t carve_rows(std::byte* from, const LinearArgs& a, Rows& x) {
  Carver carve(from);
  const int64_t groups = a.rows * groups_of(a.w.cols);
  x = {carve.take<int8_t>(a.rows * a.w.cols), carve.take<float>(groups), carve.take<int32_t>(groups)};
  return carve.used();
}

}  // namespace

bool gemm_int8_takes(int type) {
  static const bool runs = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                           __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                           __builtin_cpu_supports("avx512vnni") != 0;
  return runs && ggml_is_quantized(static_cast<ggml_type>(type));
}

void gemm_int8(const LinearArgs& a) {
  const int64_t k = a.w.cols;
  const int64_t panels = (a.w.rows + kPanel - 1) / kPanel;
  const int64_t tiles = (a.rows + kTile - 1) / kTile;
  PackedWeights passing(0);
  std::byte* packed = packed_panels(a, panels, a.packed != nullptr ? *a.packed : passing);
  Rows x{};
  const Scratch scratch(0, carve_rows(nullptr, a, x));
  carve_rows(scratch.shared(), a, x);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < a.rows; ++t) {
      int32_t* starts = x.starts + t * groups_of(k);
      quantise(a.x + t * k, k, x.codes + t * k, x.scales + t * groups_of(k), starts);
      for (int64_t g = 0; g < groups_of(k); ++g) starts[g] *= -128;
    }
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < tiles * panels; ++item) {
      const int64_t first = item % tiles * kTile, feature = item / tiles * kPanel;
      const Panel panel(packed + static_cast<size_t>(item / tiles) * Panel::bytes(k), k);
      multiply(a, x, panel, first, std::min(a.rows, first + kTile), feature);
    }
  }
}

}  // namespace bough::cpu
