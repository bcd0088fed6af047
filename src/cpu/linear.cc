#include "steps/linear.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/gemm_int8.h"
#include "cpu/model_bodies.h"
#include "cpu/tile.h"

namespace bough::cpu {
namespace {

constexpr int64_t kFeatures = 16;  // output features a thread takes at once

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

void dot_features(const LinearArgs& a, const PairedRows& x, int64_t first) {
  const auto vec_dot = ggml_get_type_traits_cpu(static_cast<ggml_type>(a.w.type))->vec_dot;
  for (int64_t n = first; n < first + kFeatures && n < a.w.rows; ++n) {
    const auto* row = static_cast<const std::byte*>(a.w.data) + static_cast<size_t>(n) * a.w.row_bytes;
    const float bias = a.bias == nullptr ? 0.0F : a.bias[n];
    for (int64_t t = 0; t < a.rows; ++t) {
      float sum = 0;
      vec_dot(static_cast<int>(a.w.cols), &sum, 0, row, 0, x.data + static_cast<size_t>(t) * x.row_bytes, 0, 1);
      sum += bias;
      float& y = a.y[t * a.w.rows + n];
      y = a.add ? y + sum : sum;
    }
  }
}

// Dot products straight on the file's rows. One parallel region for all: a step of decode has hundreds, and they are short.
void dot(std::span<const LinearArgs> products) {
  std::vector<PairedRows> paired;
  std::vector<size_t> x_of;
  std::vector<int64_t> ends;  // in runs of features
  for (const LinearArgs& a : products) {
    const ggml_type type = ggml_get_type_traits_cpu(static_cast<ggml_type>(a.w.type))->vec_dot_type;
    const auto same = std::find_if(paired.begin(), paired.end(), [type](const PairedRows& x) { return x.type == type; });
    x_of.push_back(static_cast<size_t>(same - paired.begin()));
    if (same == paired.end()) paired.emplace_back(type, a.x, a.rows, a.w.cols);
    ends.push_back((ends.empty() ? 0 : ends.back()) + (a.w.rows + kFeatures - 1) / kFeatures);
  }
#pragma omp parallel for schedule(static)
  for (int64_t run = 0; run < ends.back(); ++run) {
    const auto i = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), run) - ends.begin());
    dot_features(products[i], paired[x_of[i]], (run - (i == 0 ? 0 : ends[i - 1])) * kFeatures);
  }
}

}  // namespace

void linear(std::span<const LinearArgs> products) {
  if (products.front().phase == Phase::decode) return dot(products);
  for (const LinearArgs& a : products) {
    if (!a.precise && tile_amx() == nullptr && gemm_int8_takes(a.w.type)) {
      gemm_int8(a);
    } else {
      gemm(a);
    }
  }
}

}  // namespace bough::cpu
