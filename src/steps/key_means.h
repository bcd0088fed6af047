// key_means: the means of runs of keys of one layer and head, which a search by pieces scores in place of the keys. The keys of a run are
// summed in their order in fp32, the sum is multiplied by 1 / piece and rounded once. Called from many threads, unlike the other steps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "steps/shape.h"

namespace bough {

// What a mean is stored as: f32 where the cache is f32, else the bf16 that every other type reads as.
constexpr DType mean_type(DType kv) { return kv == DType::f32 ? DType::f32 : DType::bf16; }

constexpr int kMaxMeanDim = 256;

// REQUIRES: kv.head_dim <= kMaxMeanDim.
struct KeyMeansArgs {
  KvShape kv;
  PageTable pages;
  size_t plane = 0;          // kv.k_offset of the layer and head
  int64_t token = 0;         // where the first run begins; the others follow one another
  int piece = 1;             // keys of a run
  int count = 0;             // runs
  std::byte* out = nullptr;  // row i of mean_type(kv.type) at i * stride
  size_t stride = 0;         // bytes
};

}  // namespace bough
