// attend: the choice of its instance.
#include "cuda/instance.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t attend_instance(const Problem& p, Tier tier, cudaStream_t stream);

cudaError_t attend(const Problem& p, Tier tier, cudaStream_t stream) {
#define BOUGH_CUDA_CALL(T, KV, D) attend_instance<T, KV, D>(p, tier, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
