// attend of one template instance.
#pragma once

#include "cuda/attend_rows.cuh"
#include "cuda/attend_sm90.cuh"
#include "cuda/instance.cuh"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t attend_instance(const Problem& given, Tier tier, cudaStream_t stream) {
  if (given.nb == 0) return cudaSuccess;
  Problem p = given;
  if (p.as_given) p.angles.pairs = 0;
  if (moves(p.positions)) return attend_rows<T, KV, D, true>(p, false, stream);
  if constexpr (BOUGH_CUDA_SM90 != 0 && KV == Kv::same && (D == 64 || D == 128)) {
    const bool decode = p.owner != nullptr;
    if (tier == Tier::sm90 && !decode) {
      const cudaError_t error = attend_sm90<T, D>(p, stream);
      return error != cudaSuccess ? error : attend_rows<T, KV, D>(p, true, stream);
    }
  }
  return attend_rows<T, KV, D>(p, false, stream);
}

}  // namespace bough::cuda
