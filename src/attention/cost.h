// PlanCost: what a plan costs, counted from its own numbers and not timed: how search and attention grow with a text.
#pragma once

#include <cstdint>

#include "bough/attention.h"
#include "steps/shape.h"

namespace bough {

struct PlanCost {
  double keys_scored = 0;  // keys or means that one KV head of one layer scores in a decode step, the mean over layers and a refresh cycle
  double keys_attended = 0;    // that it attends to, the mean over layers
  double search_flops = 0;     // of the prefill of the whole text
  double attention_flops = 0;  // of the same, over what was selected
};

// Of a text of `length` tokens, without a tail. A multiplication and an addition are two operations; every search row is multiplied by
// every key that it is scored against (scan: rows x candidates x probes; tree: rows x live halves a round). Work that a stage is spared
// because all of its candidates survive is not counted.
PlanCost plan_cost(const AttentionPlan& plan, const HeadShape& heads, int layers, int64_t length);

}  // namespace bough
