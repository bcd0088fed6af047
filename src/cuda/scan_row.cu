// scan_row: the choice of its instance.
#include "cuda/instance.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t scan_row_instance(const Problem& p, int stage, bool first, cudaStream_t stream);

cudaError_t scan_row(const Problem& layer, int stage, bool first, cudaStream_t stream) {
  const Problem p = layer.stages.piece[stage] > 1 ? of_means(layer) : layer;
#define BOUGH_CUDA_CALL(T, KV, D) scan_row_instance<T, KV, D>(p, stage, first, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
