// refresh: whether a block is pruned at all, and which prune stages run at a decode step.
#pragma once

#include <cstdint>
#include <span>

#include "bough/attention.h"

namespace bough {

// Does a block of this layer that ends at r1 see every token, at true positions?
inline bool sees_everything(const LayerPlan& layer, int64_t dense_below, int64_t r1) {
  return layer.mode == Mode::dense || r1 <= layer.sinks + layer.window + layer.k || r1 < dense_below;
}

// The least stage whose interval divides `counter`, the number of decode rows since the last append, rollback, fork or restore; the
// number of intervals when none does. Everything refreshes at 0. intervals: of a LayerPlan.
inline int first_refreshed_stage(std::span<const int> intervals, int64_t counter) {
  int stage = 0;
  for (const int interval : intervals) {
    if (counter % interval == 0) return stage;
    ++stage;
  }
  return stage;
}

}  // namespace bough
