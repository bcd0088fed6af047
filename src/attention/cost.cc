#include "attention/cost.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/refresh.h"
#include "steps/block_list.h"

namespace bough {
namespace {

constexpr int64_t kBlock = 64;

// Keys that each stage (or the tree, as one) scores for a query block of `rows` whose last interval begins at w0. REQUIRES: the layer
// selects.
std::vector<double> scored_keys(const LayerPlan& l, int rows, int64_t w0) {
  std::vector<double> keys;
  const int64_t tokens = std::max<int64_t>(0, w0 - l.sinks);
  if (l.mode == Mode::hip) {
    const auto blocks = static_cast<double>(tokens / l.tree.key_block), branches = static_cast<double>(l.k / l.tree.key_block);
    const double rounds = blocks > branches ? std::ceil(std::log2(blocks / branches)) : 0;
    keys.push_back(rounds * 2 * branches * (l.tree.key_block / l.tree.key_stride));
    return keys;
  }
  int64_t left = (tokens + l.stages[0].chunk - 1) / l.stages[0].chunk;
  for (size_t i = 0; i < l.stages.size(); ++i) {
    const StagePlan s = l.stages[i].of_block(rows);
    if (i > 0) left *= l.stages[i - 1].chunk / s.chunk;
    const int64_t keep = l.kept_after(i, rows) / s.chunk;
    keys.push_back(left > keep ? static_cast<double>(left) * s.probes() : 0);
    left = std::min(left, keep);
  }
  return keys;
}

int rows_of(const LayerPlan& l, const AttentionPlan& plan, size_t stage) {
  if (l.mode == Mode::hip) return static_cast<int>(kBlock) / l.tree.query_stride;
  return plan.pool == Pool::all ? static_cast<int>(kBlock) : static_cast<int>(kBlock) / l.stages[stage].query_stride;
}

double attended(const LayerPlan& l, const AttentionPlan& plan, int64_t r1, int rows) {
  return static_cast<double>(sees_everything(l, plan.dense_below, r1) ? r1 : l.sinks + l.window + l.selected(rows));
}

}  // namespace

PlanCost plan_cost(const AttentionPlan& plan, const HeadShape& heads, int layers, int64_t length) {
  PlanCost cost;
  const double per_key = 2.0 * heads.head_dim * heads.heads;
  for (int i = 0; i < layers; ++i) {
    const LayerPlan l = plan.layer(i);
    const auto searches = [&](int64_t r1) { return l.k > 0 && !sees_everything(l, plan.dense_below, r1); };
    for (int64_t r0 = 0; r0 < length; r0 += kBlock) {
      const int64_t r1 = std::min(r0 + kBlock, length);
      const int rows = static_cast<int>(r1 - r0);
      cost.attention_flops += rows * attended(l, plan, (r0 + r1 + 1) / 2, rows) * 2 * per_key;
      if (!searches(r1)) continue;
      const std::vector<double> keys = scored_keys(l, rows, window_start(r0, r1, l.sinks, l.window, l.last_chunk()));
      for (size_t s = 0; s < keys.size(); ++s) cost.search_flops += keys[s] * rows_of(l, plan, s) * per_key;
    }
    cost.keys_attended += attended(l, plan, length, 1);
    if (!searches(length)) continue;
    const std::vector<double> keys = scored_keys(l, 1, window_start(length - 1, length, l.sinks, l.window, l.last_chunk()));
    for (size_t s = 0; s < keys.size(); ++s) cost.keys_scored += keys[s] / l.refresh[s];
  }
  cost.keys_attended /= layers;
  cost.keys_scored /= layers;
  return cost;
}

}  // namespace bough
