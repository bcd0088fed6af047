// scan_row: the choice of its instance.
#include <bit>

#include "cuda/instance.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t scan_row_instance(const Problem& p, int stage, bool first, cudaStream_t stream);

cudaError_t scan_row(const Problem& layer, int stage, bool first, cudaStream_t stream) {
  Problem p = layer;
  if (const int piece = p.stages.row_piece[stage]; piece > 0) {
    p.stages.piece[stage] = piece;
    p.stages.piece_shift[stage] = std::countr_zero(static_cast<unsigned>(piece));
  }
  if (p.stages.piece[stage] > 1) p = of_means(p);
#define BOUGH_CUDA_CALL(T, KV, D) scan_row_instance<T, KV, D>(p, stage, first, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
