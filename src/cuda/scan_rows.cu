// scan_rows: the choice of its instance, and the size of its scratch.
#include <algorithm>

#include "cuda/instance.cuh"
#include "cuda/scan_images.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t scan_rows_instance(const Problem& p, int stage, void* images, Tier tier, cudaStream_t stream);

// The most over stages of blocks * KV heads * row groups * sides * ceil(d / 64) * 8 KiB, for the blocks that are scanned at a time.
size_t image_bytes(const Problem& p) {
  int64_t most = 0;
  for (int stage = 0; stage < p.stages.count; ++stage) {
    most = std::max(most, std::min(p.nb, image_blocks(p, stage)) * block_image_bytes(p, stage));
  }
  return static_cast<size_t>(most);
}

cudaError_t scan_rows(const Problem& layer, int stage, void* images, Tier tier, cudaStream_t stream) {
  const Problem p = layer.stages.piece[stage] > 1 ? of_means(layer) : layer;
#define BOUGH_CUDA_CALL(T, KV, D) scan_rows_instance<T, KV, D>(p, stage, images, tier, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
