#include "steps/linear.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <vector>

#include "cpu/gemm.h"
#include "cpu/gemm_int8.h"
#include "cpu/model_bodies.h"

namespace bough::cpu {
namespace {

constexpr int64_t kFeatures = 16;  // output features a thread takes at once

// Dot products straight on the file's rows, x in the type that ggml pairs with them.
void dot(const LinearArgs& a) {
  const auto* traits = ggml_get_type_traits_cpu(static_cast<ggml_type>(a.w.type));
  const auto* x_traits = ggml_get_type_traits_cpu(traits->vec_dot_type);
  const size_t x_bytes = ggml_row_size(traits->vec_dot_type, a.w.cols);
  std::vector<std::byte> quantised(x_bytes * static_cast<size_t>(a.rows));
  const bool plain = traits->vec_dot_type == GGML_TYPE_F32;
  for (int64_t t = 0; t < a.rows && !plain; ++t) {
    x_traits->from_float(a.x + t * a.w.cols, quantised.data() + static_cast<size_t>(t) * x_bytes, a.w.cols);
  }
  const auto* x = plain ? reinterpret_cast<const std::byte*>(a.x) : quantised.data();
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < a.w.rows; first += kFeatures) {
    for (int64_t n = first; n < first + kFeatures && n < a.w.rows; ++n) {
      const auto* row = static_cast<const std::byte*>(a.w.data) + static_cast<size_t>(n) * a.w.row_bytes;
      const float bias = a.bias == nullptr ? 0.0F : a.bias[n];
      for (int64_t t = 0; t < a.rows; ++t) {
        float sum = 0;
        traits->vec_dot(static_cast<int>(a.w.cols), &sum, 0, row, 0, x + static_cast<size_t>(t) * x_bytes, 0, 1);
        sum += bias;
        float& y = a.y[t * a.w.rows + n];
        y = a.add ? y + sum : sum;
      }
    }
  }
}

}  // namespace

void linear(const LinearArgs& a) {
  if (a.phase == Phase::decode) {
    dot(a);
  } else if (!a.precise && gemm_int8_takes(a.w.type)) {
    gemm_int8(a);
  } else {
    gemm(a);
  }
}

}  // namespace bough::cpu
