// scan_rows: images of query rows, then the kernel that multiplies keys by them.
#pragma once

#include "cuda/scan_rows.cuh"
#include "cuda/scan_rows_sm90.cuh"

namespace bough::cuda {

template <typename T, Kv KV, int D>
cudaError_t scan_rows_of(const Problem& p, int stage, ImageShape shape, const void* images, Tier tier, cudaStream_t stream) {
  if constexpr (D == 64 || D == 128) {
    if (tier == Tier::sm90 && !scan_turns_keys(p)) return scan_rows_sm90<T, KV, D>(p, stage, shape, images, stream);
  }
  return scan_rows_portable<T, KV, D>(p, stage, shape, images, stream);
}

template <typename T, Kv KV, int D>
cudaError_t scan_rows_instance(const Problem& p, int stage, void* images, Tier tier, cudaStream_t stream) {
  if (p.blocks == nullptr) return cudaSuccess;  // decode: every block has one row
  for (int first = 0; first < p.nb; first += image_blocks(p, stage)) {
    const ImageShape shape = image_shape(p, stage, first);
    cudaError_t error = write_images<T, D>(p, stage, shape, images, stream);
    if (error == cudaSuccess) error = scan_rows_of<T, KV, D>(p, stage, shape, images, tier, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace bough::cuda
