// attend: exact softmax attention of each query block over its context, RoPE by rank (or PositionRule) inside, plainly causal by rank.
// With a sliding window a row sees the last `window` ranks up to its own; the context is one interval then, [w0, r1) with w0 at most
// max(0, r0 + 1 - window), so that ranks are as far apart as positions. lse is the natural log of the sum of exponentials; a row that sees
// no key gives o = 0 and lse = -inf.
#pragma once

#include "steps/block_list.h"
#include "steps/mass.h"
#include "steps/positions.h"
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
  int64_t window = 0;               // 0: all ranks up to the row's own
  PositionRule positions;
  float* o = nullptr;          // [t, hq, d]
  float* lse = nullptr;        // [t, hq] or null
  const Mass* mass = nullptr;  // or null: no row is watched
};

}  // namespace bough
