// The working set of decode: its layout.
//
// A key's row is D elements in pieces of 16 bytes, which stand in an order that depends on the key, so that the same piece of eight
// neighbouring keys lies in eight different groups of shared memory's banks.
#pragma once

#include "cuda/instance.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"

namespace bough::cuda {

template <int D>
__device__ __forceinline__ int place_of(int piece, int key) {
  if constexpr (D % 64 == 0) return piece ^ (key & 7);
  return (piece & ~3) | ((piece + key / 2) & 3);  // rows of 12 pieces: every other key begins 4 groups on by itself
}

template <typename T, int D>
struct SetView {
  T* k;
  T* v;

  __device__ SetView(const WorkingSets& w, int kv_heads, int slot, int head)
      : k(static_cast<T*>(w.k) + (static_cast<int64_t>(slot) * kv_heads + head) * w.capacity * D),
        v(static_cast<T*>(w.v) + (static_cast<int64_t>(slot) * kv_heads + head) * w.capacity * D) {}
};

}  // namespace bough::cuda
