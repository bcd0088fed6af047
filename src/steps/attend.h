// attend: exact softmax attention of each query block over its context, RoPE by rank inside, plainly causal by rank.
// lse is the natural log of the sum of exponentials; a row that sees no key gives o = 0 and lse = -inf.
#pragma once

#include "steps/block_list.h"
#include "steps/rope.h"

namespace bough {

struct AttendArgs {
  const Batch* batch = nullptr;
  int64_t first_block = 0;  // blocks [first_block, nb)
  KvShape kv;
  HeadShape heads;
  int layer = 0;
  const float* q = nullptr;         // [t, hq, d] un-rotated, not scaled
  BlockList lists;                  // over all nb blocks
  const RopeTable* rope = nullptr;  // covers the largest context
  float* o = nullptr;               // [t, hq, d]
  float* lse = nullptr;             // [t, hq] or null
};

}  // namespace bough
