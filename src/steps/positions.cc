#include "steps/positions.h"

#include <algorithm>

namespace bough {

void ContextPositions::angles(const RopeTable& rope, int64_t rank, float* cos, float* sin) const {
  const int pairs = rope.pairs();
  const int64_t position = key(rank);
  std::copy_n(rope.cos_row(position), pairs, cos);
  std::copy_n(rope.sin_row(position), pairs, sin);
  if (!of_.blends()) return;
  const int64_t far = of_.squeezed(context_.token(rank));
  for (int i = 0; i < pairs; ++i) {
    cos[i] = kStreamingShare * cos[i] + (1 - kStreamingShare) * rope.cos_row(far)[i];
    sin[i] = kStreamingShare * sin[i] + (1 - kStreamingShare) * rope.sin_row(far)[i];
  }
}

int64_t ContextPositions::table_positions(const PositionRule& rule, int64_t keys, int64_t length) {
  if (rule.positions == Positions::true_positions) return std::max(keys, length);
  return rule.positions == Positions::dynamic_extend ? std::max(keys, rule.trained_context) : keys;
}

}  // namespace bough
