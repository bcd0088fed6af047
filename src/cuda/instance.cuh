// Template instances that the build has, each compiled in a file of its own, and the choice among them.
#pragma once

#include "cuda/prim/convert.cuh"
#include "cuda/problem.h"
#include "cuda_instances.h"  // generated: BOUGH_CUDA_INSTANCES(X), X(T, KV, D) for each

namespace bough::cuda {

template <typename T>
inline constexpr ElementType kTypeOf = ElementType::bf16;
template <>
inline constexpr ElementType kTypeOf<__half> = ElementType::f16;

template <typename T, Kv KV>
constexpr bool stores(ElementType kv) {
  if (KV == Kv::same) return kv == kTypeOf<T>;
  return kv == (KV == Kv::e4m3 ? ElementType::e4m3 : ElementType::i8);
}

}  // namespace bough::cuda

// return STEP_instance<T, KV, D>(...) of the instance that p asks for, or cudaErrorNotSupported.
#define BOUGH_CUDA_CASE(T, KV, D) \
  if (p.q_type == kTypeOf<T> && stores<T, KV>(p.kv_type) && p.d == (D)) return BOUGH_CUDA_CALL(T, KV, D);
