// refresh: which prune stages run at a decode step.
#pragma once

#include <cstdint>
#include <span>

namespace bough {

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
