// The fit of an AttentionPlan to the context that a model was trained on.
#include <algorithm>
#include <string>

#include "attention/plan_parts.h"
#include "base/check.h"
#include "bough/attention.h"

namespace bough {
namespace {

// The layer that needs the most positions.
LayerPlan widest(const AttentionPlan& p) {
  const std::vector<LayerPlan> layers = p.distinct_layers();
  return *std::max_element(layers.begin(), layers.end(),
                           [](const LayerPlan& a, const LayerPlan& b) { return a.context_tokens() < b.context_tokens(); });
}

// Beyond sinks, window and k.
int64_t block_and_interval(const LayerPlan& l) { return l.context_tokens() - l.sinks - l.window - l.k; }

int64_t least_window(const LayerPlan& l) {
  const int64_t grain = l.last_chunk();
  const int64_t first_chunk = l.stages.empty() ? 0 : l.stages[0].chunk;
  return std::max(2 * first_chunk, (first_chunk + l.refresh[0] + grain - 1) / grain * grain);
}

Status too_long(const AttentionPlan& p, int64_t trained_context) {
  const LayerPlan l = widest(p);
  return {Code::invalid_argument, "the attention plan needs positions up to " + std::to_string(l.context_tokens()) + " (sinks " +
                                      std::to_string(l.sinks) + " + window " + std::to_string(l.window) + " + k " + std::to_string(l.k) +
                                      " + " + std::to_string(block_and_interval(l)) +
                                      " for a query block and the last refresh interval), but the model was trained on " +
                                      std::to_string(trained_context) + " tokens"};
}

// Cuts k and first.k, and where no chunk of k would be left the window too; false when even the least window leaves no room.
// REQUIRES: no `layers`.
bool cut_to_fit(AttentionPlan& p, int64_t trained_context) {
  const LayerPlan l = widest(p);
  const int64_t grain = l.last_chunk();
  const int64_t room = trained_context - l.sinks - block_and_interval(l);  // for window and k
  const int64_t k_grain = p.mode == Mode::streaming ? 0 : grain;
  if (room < least_window(l) + k_grain) return false;
  if (room < p.window + k_grain) {
    const int64_t share = p.mode == Mode::streaming ? room : room / 2;
    p.window = std::min(p.window, std::max(least_window(l), share / grain * grain));
  }
  const int64_t k = (room - p.window) / grain * grain;
  if (p.mode == Mode::stages) p.k = std::min(p.k, k);
  if (p.first) p.first->k = std::min(p.first->k, k);
  if (p.tree) p.tree->k = std::min(p.tree->k, k);
  return true;
}

std::string cut_note(const AttentionPlan& before, const AttentionPlan& after, int64_t trained_context) {
  std::string cuts;
  auto add = [&cuts](const std::string& what, int64_t from, int64_t to) {
    if (from == to) return;
    cuts += (cuts.empty() ? "" : ", ") + what + " was cut from " + std::to_string(from) + " to " + std::to_string(to);
  };
  add("k", before.k, after.k);
  if (before.first) add("k of the first " + std::to_string(before.first->layers) + " layers", before.first->k, after.first->k);
  if (before.tree) add("k", before.tree->k, after.tree->k);
  add("window", before.window, after.window);
  add("dense_below", before.dense_below, after.dense_below);
  return cuts + " because the model was trained on " + std::to_string(trained_context) + " tokens";
}

}  // namespace

Result<FittedPlan> fit_plan(const AttentionPlan& p, int64_t trained_context, bool explicit_plan) {
  BOUGH_RETURN_IF_ERROR(validate_plan(p));
  if (trained_context < 1) {
    return Status(Code::invalid_argument, "the trained context is " + std::to_string(trained_context) + ", must be at least 1");
  }
  if (p.context_tokens() <= trained_context && p.dense_below <= trained_context) return FittedPlan{p, ""};
  if (explicit_plan && p.dense_below > trained_context) {
    return Status(Code::invalid_argument, "dense_below is " + std::to_string(p.dense_below) + ", must be at most the trained context " +
                                              std::to_string(trained_context));
  }
  if (explicit_plan) return too_long(p, trained_context);
  AttentionPlan cut = p;
  cut.dense_below = std::min(cut.dense_below, trained_context);
  if (cut.context_tokens() > trained_context && (!p.layers.empty() || !cut_to_fit(cut, trained_context))) {
    return too_long(p, trained_context);
  }
  return FittedPlan{cut, cut_note(p, cut, trained_context)};
}

}  // namespace bough
