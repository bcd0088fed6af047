// Prefill's matrix product in 8 bits: the contract of steps/linear.h for quantised weights, by AVX-512 VNNI.
#pragma once

#include "steps/linear.h"

namespace bough::cpu {

// Whether this CPU and weights of this ggml_type are for gemm_int8.
bool gemm_int8_takes(int ggml_type);

// y (+)= x W^T. REQUIRES: gemm_int8_takes(args.w.type). Throws std::bad_alloc.
void gemm_int8(const LinearArgs& args);

}  // namespace bough::cpu
