// Prefill's matrix product in bf16: oneDNN's, one-threaded inside our own parallel loop over fixed tiles, so that a row's result does not
// depend on how many rows come with it.
#pragma once

#include <span>

#include "steps/linear.h"

namespace bough::cpu {

// y (+)= x W^T of each product. REQUIRES: tile_bf16() is there; no W is f32; all have the same x, rows and w.cols, and each a y of its own.
// Throws std::bad_alloc or dnnl::error.
void gemm_bf16(std::span<const LinearArgs> products);

}  // namespace bough::cpu
