#include "steps/positions.h"

#include <algorithm>

namespace bough {
namespace {

constexpr float kNear = 0.75F;  // weight of streaming's angles under dynamic-extend

}  // namespace

ContextPositions::ContextPositions(const PositionRule& rule, const Context& context, int64_t r0)
    : context_(context),
      kind_(context.w0 == 0 ? Positions::rank : rule.positions),
      window_(rule.window),
      trained_(rule.trained_context),
      r0_(r0) {
  if (by_rank() || kind_ == Positions::true_positions) return;
  base_ = std::min(placed(0), context.w0);
  if (kind_ == Positions::dynamic_extend) base_ = std::min(base_, std::max<int64_t>(0, context.r1 - trained_));
}

int64_t ContextPositions::query(int64_t p) const {
  return std::max<int64_t>(0, by_rank() ? context_.size() - (context_.r1 - p) : p - base_);
}

int64_t ContextPositions::key(int64_t rank) const { return placed(rank) - base_; }

int64_t ContextPositions::placed(int64_t rank) const {
  if (by_rank()) return rank;
  const int64_t before = context_.sinks + context_.selected;
  if (rank >= before || kind_ == Positions::true_positions) return context_.token(rank);
  if (kind_ == Positions::infllm) return std::max<int64_t>(0, r0_ - window_);
  return std::max<int64_t>(0, rank - before + r0_ + 1 - window_);
}

int64_t ContextPositions::squeezed(int64_t rank) const {
  const int64_t i = context_.token(rank);
  const int64_t near = trained_ / 4;
  if (context_.r1 <= trained_ || i >= context_.r1 - near) return i;
  const int64_t edge = std::max<int64_t>(1, r0_ - near);
  return std::max(context_.r1 - trained_, edge + (i - edge) * (trained_ - near) / edge);
}

void ContextPositions::angles(const RopeTable& rope, int64_t rank, float* cos, float* sin) const {
  const int pairs = rope.pairs();
  const int64_t position = key(rank);
  std::copy_n(rope.cos_row(position), pairs, cos);
  std::copy_n(rope.sin_row(position), pairs, sin);
  if (kind_ != Positions::dynamic_extend) return;
  const int64_t far = squeezed(rank) - base_;
  for (int i = 0; i < pairs; ++i) {
    cos[i] = kNear * cos[i] + (1 - kNear) * rope.cos_row(far)[i];
    sin[i] = kNear * sin[i] + (1 - kNear) * rope.sin_row(far)[i];
  }
}

int64_t ContextPositions::table_positions(const PositionRule& rule, int64_t keys, int64_t length) {
  if (rule.positions == Positions::true_positions) return std::max(keys, length);
  return rule.positions == Positions::dynamic_extend ? std::max(keys, rule.trained_context) : keys;
}

}  // namespace bough
