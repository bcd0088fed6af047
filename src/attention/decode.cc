#include "attention/decode.h"

#include <string>

namespace bough {

void frozen_contexts(const LayerPlan& plan, int list_heads, const LayerState& state, int64_t r1, std::vector<Context>& contexts) {
  contexts.assign(static_cast<size_t>(list_heads), {});
  for (size_t h = 0; h < contexts.size(); ++h) {
    Context& c = contexts[h];
    c.r1 = r1;
    c.w0 = state.w0;
    if (state.holds == LayerState::Holds::run) continue;
    c.sinks = std::min(plan.sinks, state.w0);
    c.start = state.selected.data() + static_cast<ptrdiff_t>(h) * state.selected_count;
    c.chunk = plan.last_chunk();
    c.selected = static_cast<int64_t>(state.selected_count) * c.chunk;
  }
}

namespace {

// The first token of a run that ends with position p. A window's moves in steps, so that the set is rebuilt rarely, and depends on p
// alone, so that no history changes a bit.
int64_t run_start(int64_t window, int64_t p) {
  return window == 0 ? 0 : std::max<int64_t>(0, p + 1 - window) / kWindowGrain * kWindowGrain;
}

}  // namespace

Status renew_working_sets(const AttentionSetup& setup, const Batch& batch, int layer, const BlockList& lists,
                          std::span<const uint8_t> refreshed, const RopeTable& rope, std::span<AttentionState* const> states) {
  const LayerPlan& plan = setup.layer(layer);
  const int64_t window = setup.attention_of(layer).sliding_window;
  const PositionRule rule = setup.positions(layer);
  const int64_t sinks_kept = plan.sinks / 32 * 32;
  std::vector<Context> contexts;
  for (size_t b = 0; b < states.size(); ++b) {
    LayerState& state = states[b]->layers[static_cast<size_t>(layer)];
    const QueryBlock& block = batch.blocks[b];
    using Holds = LayerState::Holds;
    const bool run = window > 0 || setup.is_dense(layer, block.r1());
    const Holds wanted = run ? Holds::run : refreshed[b] != 0 ? Holds::pruned : state.holds;
    // A renewed context begins with the same sinks at the same ranks as whatever the set held.
    if (wanted != state.holds || refreshed[b] != 0) state.set.size = wanted == Holds::pruned ? std::min(state.set.size, sinks_kept) : 0;
    state.holds = wanted;
    if (!run && rule.positions != Positions::rank) state.set.size = 0;  // the keys before the window move with every step
    if (run && state.w0 != run_start(window, block.r0)) {
      state.w0 = run_start(window, block.r0);
      state.set.size = 0;
    }
    frozen_contexts(plan, setup.list_heads(), state, block.r1(), contexts);
    const int64_t keys = contexts[0].size();
    if (!setup.bodies->working_set_reserve(setup.kv, window > 0 ? keys : std::max(keys, plan.context_tokens()), state.set)) {
      return Status(Code::out_of_memory, "no memory for a working set of " + std::to_string(keys) + " keys");
    }
    WorkingSetArgs args;
    args.pages = &batch.sequences[static_cast<size_t>(block.seq)];
    args.kv = setup.kv;
    args.layer = layer;
    args.rope = &rope;
    args.contexts = contexts.data();
    args.list_heads = lists.list_heads;
    args.from = state.set.size;
    args.positions = rule;
    args.set = &state.set;
    setup.bodies->working_set_build(args);
  }
  return {};
}

}  // namespace bough
