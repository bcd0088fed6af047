// select: the best chunks of each list, ascending by start. Of equal scores the lower start wins. All lists of a block keep equally
// many: where a limit leaves one of them with fewer than `keep`, the others keep that few.
#pragma once

#include "steps/scan.h"

namespace bough {

struct SelectArgs {
  const Batch* batch = nullptr;
  Candidates candidates;
  const uint8_t* scored = nullptr;  // [nb]; a block that was not scored keeps all its candidates (they fit by construction)
  const float* scores = nullptr;    // [nb, hkv, score_capacity]
  int64_t score_capacity = 0;
  int kv_heads = 0;
  const int64_t* limit = nullptr;  // [nb] or null: candidates with start >= limit are dropped first and take no slot
  int64_t keep = 0;                // chunks, of blocks of several rows
  int64_t row_keep = 0;            // chunks, of blocks of one row
  int32_t* start = nullptr;        // [nb, lh, capacity] out, ascending
  int32_t* count = nullptr;        // [nb] out
  int64_t capacity = 0;            // at least keep and row_keep

  int64_t keep_of(int64_t block) const { return batch->blocks[static_cast<size_t>(block)].rows == 1 ? row_keep : keep; }
};

}  // namespace bough
