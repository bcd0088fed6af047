#include "steps/linear.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "cpu/dot_interleaved.h"
#include "cpu/gemm_bf16.h"
#include "cpu/gemm_f32.h"
#include "cpu/gemm_int8.h"
#include "cpu/model_bodies.h"
#include "cpu/packed_weights.h"
#include "cpu/tile.h"

namespace bough::cpu {
namespace {

constexpr int64_t kFeatures = kInterleaved;  // output features a thread takes at once

// Rows of x in the type that ggml pairs with the weights'.
struct PairedRows {
  ggml_type type = GGML_TYPE_COUNT;
  std::vector<std::byte> quantised;
  const std::byte* data = nullptr;
  size_t row_bytes = 0;

  PairedRows(ggml_type paired, const float* x, int64_t rows, int64_t cols) : type(paired), row_bytes(ggml_row_size(paired, cols)) {
    data = reinterpret_cast<const std::byte*>(x);
    if (paired == GGML_TYPE_F32) return;
    quantised.resize(row_bytes * static_cast<size_t>(rows));
    data = quantised.data();
    for (int64_t t = 0; t < rows; ++t) {
      ggml_get_type_traits_cpu(paired)->from_float(x + t * cols, quantised.data() + static_cast<size_t>(t) * row_bytes, cols);
    }
  }
};

ggml_type paired_with(const Tensor& w) { return ggml_get_type_traits_cpu(static_cast<ggml_type>(w.type))->vec_dot_type; }

// One product of several, and what its weights are multiplied with: W's own rows, or what they were laid out as.
struct Dot {
  const LinearArgs& a;
  const std::byte* interleaved;  // or null
  size_t paired;                 // of Dots::paired, without interleaved
  int64_t end;                   // runs of features of this one and all before it
};

struct Dots {
  std::vector<Dot> products;
  std::vector<PairedRows> paired;
  std::optional<RoundedRows> rounded;

  explicit Dots(std::span<const LinearArgs> all) {
    products.reserve(all.size());
    for (const LinearArgs& a : all) add(a);
  }

  void add(const LinearArgs& a) {
    const int64_t end = (products.empty() ? 0 : products.back().end) + (a.w.rows + kFeatures - 1) / kFeatures;
    const std::byte* weights = nullptr;
    if (a.packed != nullptr && interleaves(a.w.type)) {
      weights = a.packed->get_interleaved(a.w.data, interleaved_bytes(a.w), [&](std::byte* out) { interleave(a.w, out); });
    }
    size_t of_ggml = 0;
    if (weights != nullptr) {
      if (!rounded) rounded.emplace(a.x, a.rows, a.w.cols);
    } else {
      const ggml_type type = paired_with(a.w);
      const auto same = std::find_if(paired.begin(), paired.end(), [type](const PairedRows& x) { return x.type == type; });
      of_ggml = static_cast<size_t>(same - paired.begin());
      if (same == paired.end()) paired.emplace_back(type, a.x, a.rows, a.w.cols);
    }
    products.push_back({a, weights, of_ggml, end});
  }
};

void write_output(const LinearArgs& a, int64_t t, int64_t n, float sum) {
  if (a.bias != nullptr) sum += a.bias[n];
  float& y = a.y[t * a.w.rows + n];
  y = a.add ? y + sum : sum;
}

// Dot products straight on the file's rows.
void dot_features(const LinearArgs& a, const PairedRows& x, int64_t first) {
  const auto vec_dot = ggml_get_type_traits_cpu(static_cast<ggml_type>(a.w.type))->vec_dot;
  for (int64_t n = first; n < std::min(a.w.rows, first + kFeatures); ++n) {
    const auto* row = static_cast<const std::byte*>(a.w.data) + static_cast<size_t>(n) * a.w.row_bytes;
    for (int64_t t = 0; t < a.rows; ++t) {
      float sum = 0;
      vec_dot(static_cast<int>(a.w.cols), &sum, 0, row, 0, x.data + static_cast<size_t>(t) * x.row_bytes, 0, 1);
      write_output(a, t, n, sum);
    }
  }
}

void dot_interleaved(const LinearArgs& a, const std::byte* weights, const RoundedRows& x, int64_t group) {
  float sums[kFeatures];
  const int64_t first = group * kFeatures;
  for (int64_t t = 0; t < a.rows; ++t) {
    dot_group(a.w, weights, group, x.row(t), sums);
    for (int64_t n = first; n < std::min(a.w.rows, first + kFeatures); ++n) write_output(a, t, n, sums[n - first]);
  }
}

// One parallel region for all: a step of decode has hundreds, and they are short.
void dot(std::span<const LinearArgs> products) {
  const Dots dots(products);
  const int64_t runs = dots.products.back().end;
#pragma omp parallel for schedule(static)
  for (int64_t run = 0; run < runs; ++run) {
    const auto product =
        std::upper_bound(dots.products.begin(), dots.products.end(), run, [](int64_t r, const Dot& d) { return r < d.end; });
    const int64_t group = run - (product == dots.products.begin() ? 0 : (product - 1)->end);
    if (product->interleaved != nullptr) {
      dot_interleaved(product->a, product->interleaved, *dots.rounded, group);
    } else {
      dot_features(product->a, dots.paired[product->paired], group * kFeatures);
    }
  }
}

}  // namespace

void linear(std::span<const LinearArgs> products) {
  if (products.front().phase == Phase::decode) return dot(products);
  std::vector<LinearArgs> in_bf16;
  for (const LinearArgs& a : products) {
    if (!a.precise && tile_amx() == nullptr && gemm_int8_takes(a.w.type)) {
      gemm_int8(a);
    } else if (a.w.type == GGML_TYPE_F32 || tile_bf16() == nullptr) {
      gemm_f32(a);
    } else {
      in_bf16.push_back(a);
    }
  }
  gemm_bf16(in_bf16);
}

}  // namespace bough::cpu
