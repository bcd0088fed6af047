// Prefill's matrix product in f32: of f32 weights, and where the CPU has no bf16 of all that are not multiplied in 8 bits. A row's sums are
// taken in the order of k, whatever rows come with it.
#pragma once

#include <cstdint>

#include "steps/linear.h"

namespace bough::cpu {

struct GemmF32Ops {
  int64_t panel;  // output features of a panel of W, [k][panel]

  // c[r][n] = the sum over k of x[r * stride + k] * w[k * panel + n], added one by one to what c [rows][panel] holds unless
  // `first`.
  void (*multiply)(const float* x, int64_t stride, int64_t rows, const float* w, int64_t k, bool first, float* c);
};

// Highway, for the best instruction set of this CPU.
const GemmF32Ops& gemm_f32_ops();

// y (+)= x W^T. Throws std::bad_alloc.
void gemm_f32(const LinearArgs& args);

}  // namespace bough::cpu
