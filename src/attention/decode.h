// Decode's working sets: after pruning, each decode row's set is rebuilt (its context was renewed) or gets the newest token.
#pragma once

#include <span>
#include <vector>

#include "attention/prune.h"

namespace bough {

// The frozen context of a decode row's sequence in one layer, which ends at r1 now: one for each list head, in place of what `contexts`
// held.
void frozen_contexts(const LayerPlan& plan, int list_heads, const LayerState& state, int64_t r1, std::vector<Context>& contexts);

// One layer. lists and refreshed: as the Pruner left them. Between refreshes the context is frozen and new tokens are appended to it.
// Errors: out_of_memory; the sets stay valid for the tokens that they held.
Status renew_working_sets(const AttentionSetup& setup, const Batch& batch, int layer, const BlockList& lists,
                          std::span<const uint8_t> refreshed, const RopeTable& rope, std::span<AttentionState* const> states);

}  // namespace bough
