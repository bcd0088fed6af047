// attend_cached: the choice of its instance; and which instances there are.
#include "cuda/instance.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t attend_cached_instance(const Problem& p, const WorkingSets& w, cudaStream_t stream);

bool built(ElementType q, ElementType kv, int head_dim) {
  Problem p;
  p.q_type = q;
  p.kv_type = kv;
  p.d = head_dim;
#define BOUGH_CUDA_CALL(T, KV, D) true
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return false;
}

bool has_sm90() { return BOUGH_CUDA_SM90 != 0; }

cudaError_t attend_cached(const Problem& p, const WorkingSets& w, cudaStream_t stream) {
#define BOUGH_CUDA_CALL(T, KV, D) attend_cached_instance<T, KV, D>(p, w, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
