// Rules of an AttentionPlan, and its fit to the context that a model was trained on.
#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <string_view>
#include <utility>

#include "attention/plan_parts.h"
#include "base/check.h"
#include "bough/attention.h"

namespace bough {
namespace plan {

Status check_range(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return {Code::invalid_argument,
          std::string(field) + " is " + std::to_string(value) + ", must be from " + std::to_string(low) + " to " + std::to_string(high)};
}

std::span<const std::string_view> mode_names() {
  static constexpr std::array<std::string_view, 3> names = {"stages", "streaming", "dense"};
  return names;
}

std::span<const std::string_view> scan_names() {
  static constexpr std::array<std::string_view, 2> names = {"relative", "chunk-indexed"};
  return names;
}

std::span<const std::string_view> lists_names() {
  static constexpr std::array<std::string_view, 2> names = {"layer", "kv_head"};
  return names;
}

std::span<const std::string_view> pool_names() {
  static constexpr std::array<std::string_view, 3> names = {"mean", "strided", "all"};
  return names;
}

std::string join(std::span<const std::string_view> names) {
  std::string text;
  for (std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

}  // namespace plan

namespace {

using plan::check_range;

std::string at(std::string_view list, size_t i, std::string_view field = "") {
  return std::string(list) + "[" + std::to_string(i) + "]" + (field.empty() ? "" : ".") + std::string(field);
}

// `must` completes "<field> is <value>, must be ...".
Status violated(std::string_view field, int64_t value, const std::string& must) {
  return {Code::invalid_argument, std::string(field) + " is " + std::to_string(value) + ", must be " + must};
}

Status check_multiple(std::string_view field, int64_t value, int64_t of, std::string_view what) {
  if (value % of == 0) return {};
  return violated(field, value, "a multiple of " + std::string(what) + " " + std::to_string(of));
}

Status check_at_least(std::string_view field, int64_t value, int64_t least, std::string_view what) {
  if (value >= least) return {};
  return violated(field, value, "at least " + std::string(what) + " " + std::to_string(least));
}

Status check_at_most(std::string_view field, int64_t value, int64_t most, std::string_view what) {
  if (value <= most) return {};
  return violated(field, value, "at most " + std::string(what) + " " + std::to_string(most));
}

Status check_names(const AttentionPlan& p) {
  auto known = [](auto value, std::span<const std::string_view> names) { return static_cast<size_t>(value) < names.size(); };
  if (!known(p.mode, plan::mode_names())) return {Code::invalid_argument, "mode is none of " + plan::join(plan::mode_names())};
  if (!known(p.scan, plan::scan_names()) || (p.first && !known(p.first->scan, plan::scan_names()))) {
    return {Code::invalid_argument, "scan is none of " + plan::join(plan::scan_names())};
  }
  if (!known(p.lists, plan::lists_names())) return {Code::invalid_argument, "lists is none of " + plan::join(plan::lists_names())};
  if (!known(p.pool, plan::pool_names())) return {Code::invalid_argument, "pool is none of " + plan::join(plan::pool_names())};
  return {};
}

// A field that the mode does not use has to be empty: a setting is never ignored in silence.
Status check_nothing_selected(const AttentionPlan& p) {
  const std::string mode = "mode " + std::string(plan::mode_names()[static_cast<size_t>(p.mode)]);
  if (!p.stages.empty())
    return {Code::invalid_argument, "stages has " + std::to_string(p.stages.size()) + " entries, but " + mode + " has none"};
  if (p.first) return {Code::invalid_argument, "first is set, but " + mode + " selects nothing"};
  if (p.k != 0) return violated("k", p.k, "0 in " + mode);
  return {};
}

Status check_dense(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_nothing_selected(p));
  const std::pair<std::string_view, int64_t> unused[] = {
      {"sinks", p.sinks}, {"window", p.window}, {"tail", p.tail}, {"dense_below", p.dense_below}};
  for (const auto& [field, value] : unused) {
    if (value != 0) return violated(field, value, "0 in mode dense");
  }
  if (!p.refresh.empty()) {
    return {Code::invalid_argument, "refresh has " + std::to_string(p.refresh.size()) + " entries, but mode dense has none"};
  }
  return {};
}

Status check_sinks_window(const AttentionPlan& p) {
  const int64_t chunk = p.last_chunk();
  BOUGH_RETURN_IF_ERROR(check_range("sinks", p.sinks, 0, plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple("sinks", p.sinks, 64, "the page size"));
  BOUGH_RETURN_IF_ERROR(check_multiple("sinks", p.sinks, chunk, "the last chunk"));
  BOUGH_RETURN_IF_ERROR(check_range("window", p.window, chunk, plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple("window", p.window, chunk, "the last chunk"));
  BOUGH_RETURN_IF_ERROR(check_range("tail", p.tail, 0, plan::kMaxTail));
  return check_range("dense_below", p.dense_below, 0, plan::kMaxTokens);
}

Status check_streaming(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_nothing_selected(p));
  BOUGH_RETURN_IF_ERROR(check_sinks_window(p));
  if (p.refresh.size() != 1) {
    return {Code::invalid_argument, "refresh has " + std::to_string(p.refresh.size()) + " entries, mode streaming has exactly 1"};
  }
  BOUGH_RETURN_IF_ERROR(check_range("refresh[0]", p.refresh[0], 1, plan::kMaxInterval));
  return check_at_most("refresh[0]", p.refresh[0], p.window, "the window");
}

// Chunk sizes and query blocks, stage by stage. After it every chunk is a power of two.
Status check_shapes(const AttentionPlan& p) {
  for (size_t i = 0; i < p.stages.size(); ++i) {
    const StagePlan& stage = p.stages[i];
    BOUGH_RETURN_IF_ERROR(check_range(at("stages", i, "chunk"), stage.chunk, 1, plan::kMaxChunk));
    if (!std::has_single_bit(static_cast<unsigned>(stage.chunk))) {
      return violated(at("stages", i, "chunk"), stage.chunk, "a power of two from 1 to " + std::to_string(plan::kMaxChunk));
    }
    if (i > 0 && p.stages[i - 1].chunk % stage.chunk != 0) {
      return violated(at("stages", i, "chunk"), stage.chunk, "a divisor of the previous chunk " + std::to_string(p.stages[i - 1].chunk));
    }
    if (stage.query_block != 16 && stage.query_block != 32 && stage.query_block != 64) {
      return violated(at("stages", i, "query_block"), stage.query_block, "16, 32 or 64");
    }
    if (stage.query_block != p.query_block()) {
      return violated(at("stages", i, "query_block"), stage.query_block, "that of the first stage, " + std::to_string(p.query_block()));
    }
    if (stage.query_stride < 1 || stage.query_block % stage.query_stride != 0) {
      return violated(at("stages", i, "query_stride"), stage.query_stride, "a divisor of query_block " + std::to_string(stage.query_block));
    }
  }
  return {};
}

Status check_keeps(const AttentionPlan& p) {
  if (p.stages[0].keep != 0) return violated("stages[0].keep", p.stages[0].keep, "0: all tokens enter the first stage");
  for (size_t i = 1; i < p.stages.size(); ++i) {
    const std::string field = at("stages", i, "keep");
    const int64_t keep = p.stages[i].keep;
    BOUGH_RETURN_IF_ERROR(check_range(field, keep, 1, plan::kMaxTokens));
    BOUGH_RETURN_IF_ERROR(check_multiple(field, keep, p.stages[i - 1].chunk, "the previous chunk"));
    if (i > 1) BOUGH_RETURN_IF_ERROR(check_at_most(field, keep, p.stages[i - 1].keep, "the previous keep"));
    BOUGH_RETURN_IF_ERROR(check_at_least(field, keep, p.k, "k"));
    if (p.first) BOUGH_RETURN_IF_ERROR(check_at_least(field, keep, p.first->k, "first.k"));
  }
  return {};
}

Status check_selection(const AttentionPlan& p) {
  const int64_t chunk = p.last_chunk();
  BOUGH_RETURN_IF_ERROR(check_range("k", p.k, chunk, plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple("k", p.k, chunk, "the last chunk"));
  if (!p.first) return {};
  BOUGH_RETURN_IF_ERROR(check_range("first.layers", p.first->layers, 0, plan::kMaxLayers));
  BOUGH_RETURN_IF_ERROR(check_range("first.k", p.first->k, chunk, plan::kMaxTokens));
  return check_multiple("first.k", p.first->k, chunk, "the last chunk");
}

// Tokens that leave the window between two runs of the first stage have to be candidates already, hence the bound on refresh[0];
// a stage runs whenever an earlier one does, hence the divisibility.
Status check_refresh(const AttentionPlan& p) {
  if (p.refresh.size() != p.stages.size()) {
    return {Code::invalid_argument, "refresh has " + std::to_string(p.refresh.size()) + " intervals, must have as many as stages, " +
                                        std::to_string(p.stages.size())};
  }
  for (size_t i = 0; i < p.refresh.size(); ++i) {
    BOUGH_RETURN_IF_ERROR(check_range(at("refresh", i), p.refresh[i], 1, plan::kMaxInterval));
    if (i > 0 && p.refresh[i - 1] % p.refresh[i] != 0) {
      return violated(at("refresh", i), p.refresh[i], "a divisor of the previous interval " + std::to_string(p.refresh[i - 1]));
    }
  }
  return check_at_most("refresh[0]", p.refresh[0], p.window - p.stages[0].chunk, "window - stages[0].chunk,");
}

Status check_stages(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_range("the number of stages", static_cast<int64_t>(p.stages.size()), 1, plan::kMaxStages));
  BOUGH_RETURN_IF_ERROR(check_shapes(p));
  BOUGH_RETURN_IF_ERROR(check_sinks_window(p));
  BOUGH_RETURN_IF_ERROR(check_at_least("window", p.window, 2 * int64_t{p.stages[0].chunk}, "twice stages[0].chunk,"));
  BOUGH_RETURN_IF_ERROR(check_selection(p));
  BOUGH_RETURN_IF_ERROR(check_keeps(p));
  return check_refresh(p);
}

// The most keys beyond sinks, window and k that the last interval holds: a query block, or the slack of w0's rounding where the
// last chunk is longer, and the tokens appended since the last refresh.
int64_t block_and_interval(const AttentionPlan& p) { return std::max<int64_t>(plan::kMaxQueryBlock, p.last_chunk()) + p.last_refresh(); }

int64_t least_window(const AttentionPlan& p) {
  if (p.mode == Mode::streaming) return (p.last_refresh() + 7) / 8 * 8;
  const int64_t first_chunk = p.stages[0].chunk;
  const int64_t grain = p.last_chunk();
  return std::max(2 * first_chunk, (first_chunk + p.refresh[0] + grain - 1) / grain * grain);
}

Status too_long(const AttentionPlan& p, int64_t trained_context) {
  return {Code::invalid_argument, "the attention plan needs positions up to " + std::to_string(p.context_tokens()) + " (sinks " +
                                      std::to_string(p.sinks) + " + window " + std::to_string(p.window) + " + k " +
                                      std::to_string(p.max_k()) + " + " + std::to_string(block_and_interval(p)) +
                                      " for a query block and the last refresh interval), but the model was trained on " +
                                      std::to_string(trained_context) + " tokens"};
}

// Cuts k and first.k, and where no chunk of k would be left the window too; false when even the least window leaves no room.
bool cut_to_fit(AttentionPlan& p, int64_t trained_context) {
  const int64_t grain = p.last_chunk();
  const int64_t room = trained_context - p.sinks - block_and_interval(p);  // for window and k
  const int64_t k_grain = p.mode == Mode::stages ? grain : 0;
  if (room < least_window(p) + k_grain) return false;
  if (room < p.window + k_grain) {
    const int64_t share = p.mode == Mode::stages ? room / 2 : room;
    p.window = std::min(p.window, std::max(least_window(p), share / grain * grain));
  }
  if (p.mode != Mode::stages) return true;
  const int64_t k = (room - p.window) / grain * grain;
  p.k = std::min(p.k, k);
  if (p.first) p.first->k = std::min(p.first->k, k);
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
  add("window", before.window, after.window);
  add("dense_below", before.dense_below, after.dense_below);
  return cuts + " because the model was trained on " + std::to_string(trained_context) + " tokens";
}

}  // namespace

int64_t AttentionPlan::max_k() const {
  if (mode != Mode::stages) return 0;
  return first && first->layers > 0 ? std::max(k, first->k) : k;
}

int64_t AttentionPlan::context_tokens() const {
  if (mode == Mode::dense) return 0;
  return sinks + window + max_k() + block_and_interval(*this);
}

Status validate_plan(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_names(p));
  switch (p.mode) {
    case Mode::dense: return check_dense(p);
    case Mode::streaming: return check_streaming(p);
    case Mode::stages: break;
  }
  return check_stages(p);
}

Result<FittedPlan> fit_plan(const AttentionPlan& p, int64_t trained_context, bool explicit_plan) {
  BOUGH_RETURN_IF_ERROR(validate_plan(p));
  if (trained_context < 1) return violated("the trained context", trained_context, "at least 1");
  if (p.context_tokens() <= trained_context && p.dense_below <= trained_context) return FittedPlan{p, ""};
  if (explicit_plan) {
    BOUGH_RETURN_IF_ERROR(check_at_most("dense_below", p.dense_below, trained_context, "the trained context"));
    return too_long(p, trained_context);
  }
  AttentionPlan cut = p;
  cut.dense_below = std::min(cut.dense_below, trained_context);
  if (cut.context_tokens() > trained_context && !cut_to_fit(cut, trained_context)) return too_long(p, trained_context);
  return FittedPlan{cut, cut_note(p, cut, trained_context)};
}

}  // namespace bough
