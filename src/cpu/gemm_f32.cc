// Compiled once for each instruction set; the best is picked at run time.
#include "cpu/gemm_f32.h"

#include <ggml.h>

#include <algorithm>

#include "cpu/packed_weights.h"
#include "cpu/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/gemm_f32.cc"
// foreach_target.h must come before the other.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
constexpr int kVectors = kLanes == 16 ? 4 : 2;  // of a panel: with six rows the sums fill 24 of 32 registers, or 12 of 16
constexpr int kPanel = kVectors * kLanes;
constexpr int kRows = 6;

template <int R>
void multiply_rows(const float* x, int64_t stride, const float* w, int64_t k, bool first, float* c) {
  const Floats tag;
  Vec sum[R][kVectors];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = first ? hn::Zero(tag) : hn::LoadU(tag, c + r * kPanel + v * kLanes);
  }
  for (int64_t i = 0; i < k; ++i) {
    Vec features[kVectors];
    for (int v = 0; v < kVectors; ++v) features[v] = hn::LoadU(tag, w + i * kPanel + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const Vec element = hn::Set(tag, x[r * stride + i]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(element, features[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], tag, c + r * kPanel + v * kLanes);
  }
}

void multiply(const float* x, int64_t stride, int64_t rows, const float* w, int64_t k, bool first, float* c) {
  for (; rows >= kRows; rows -= kRows, x += kRows * stride, c += kRows * kPanel) multiply_rows<kRows>(x, stride, w, k, first, c);
  switch (rows) {
    case 5: return multiply_rows<5>(x, stride, w, k, first, c);
    case 4: return multiply_rows<4>(x, stride, w, k, first, c);
    case 3: return multiply_rows<3>(x, stride, w, k, first, c);
    case 2: return multiply_rows<2>(x, stride, w, k, first, c);
    case 1: return multiply_rows<1>(x, stride, w, k, first, c);
    default: return;
  }
}

const GemmF32Ops* best_ops() {
  static const GemmF32Ops ops{kPanel, multiply};
  return &ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {
namespace {

constexpr int64_t kTile = 48;       // rows, which up to kDepth elements long stay in the cache while all of W passes
constexpr int64_t kFeatures = 128;  // that an item has, at least a panel
constexpr int64_t kDepth = 1024;    // elements of x and W that come together: of longer rows too little would stay in the cache

// Output features [feature, feature + panel) of W, dequantised; zeros beyond the last. row [k] is working space.
void fill_panel(const Tensor& w, int64_t feature, int64_t panel, float* row, float* out) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(w.type))->to_float;
  std::fill_n(out, panel * w.cols, 0.0F);
  for (int64_t n = 0; n < std::min(panel, w.rows - feature); ++n) {
    const auto* from = static_cast<const std::byte*>(w.data) + static_cast<size_t>(feature + n) * w.row_bytes;
    if (w.type == GGML_TYPE_F32) {
      std::copy_n(reinterpret_cast<const float*>(from), w.cols, row);
    } else {
      to_float(from, row, w.cols);
    }
    for (int64_t i = 0; i < w.cols; ++i) out[i * panel + n] = row[i];
  }
}

const float* packed_panels(const LinearArgs& a, int64_t panel, int64_t panels, PackedWeights& store) {
  const int64_t k = a.w.cols;
  std::byte* packed = store.get(a.w.data, static_cast<size_t>(panels * panel * k) * sizeof(float), [&](std::byte* base) {
    const Scratch scratch(static_cast<size_t>(k) * sizeof(float));
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < panels; ++p) {
      fill_panel(a.w, p * panel, panel, reinterpret_cast<float*>(scratch.mine()), reinterpret_cast<float*>(base) + p * panel * k);
    }
  });
  return reinterpret_cast<const float*>(packed);
}

// Rows [row, row + rows) of x W^T for features [feature, feature + count): y (+)= c + bias.
void write_outputs(const LinearArgs& a, int64_t row, int64_t rows, int64_t feature, int64_t count, const float* c, int64_t panel) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* sums = c + r * panel;
    float* y = a.y + (row + r) * a.w.rows + feature;
    for (int64_t n = 0; n < count; ++n) {
      const float sum = a.bias == nullptr ? sums[n] : sums[n] + a.bias[feature + n];
      y[n] = a.add ? y[n] + sum : sum;
    }
  }
}

}  // namespace

HWY_EXPORT(best_ops);

const GemmF32Ops& gemm_f32_ops() { return *HWY_DYNAMIC_DISPATCH(best_ops)(); }

void gemm_f32(const LinearArgs& a) {
  const GemmF32Ops& ops = gemm_f32_ops();
  const int64_t k = a.w.cols, panel = ops.panel, panels = (a.w.rows + panel - 1) / panel;
  const int64_t together = std::max<int64_t>(1, kFeatures / panel), groups = (panels + together - 1) / together;
  const int64_t tiles = (a.rows + kTile - 1) / kTile;
  PackedWeights passing(0);
  const float* packed = packed_panels(a, panel, panels, a.packed != nullptr ? *a.packed : passing);
  const Scratch scratch(static_cast<size_t>(together * kTile * panel) * sizeof(float));
#pragma omp parallel for schedule(dynamic)
  for (int64_t item = 0; item < tiles * groups; ++item) {
    const int64_t row = item / groups * kTile, rows = std::min(kTile, a.rows - row);
    const int64_t begin = item % groups * together, end = std::min(panels, begin + together);
    auto* sums = reinterpret_cast<float*>(scratch.mine());
    for (int64_t from = 0; from < k; from += kDepth) {
      for (int64_t p = begin; p < end; ++p) {
        ops.multiply(a.x + row * k + from, k, rows, packed + (p * k + from) * panel, std::min(kDepth, k - from), from == 0,
                     sums + (p - begin) * kTile * panel);
      }
    }
    for (int64_t p = begin; p < end; ++p) {
      write_outputs(a, row, rows, p * panel, std::min(panel, a.w.rows - p * panel), sums + (p - begin) * kTile * panel, panel);
    }
  }
}

}  // namespace bough::cpu
#endif
