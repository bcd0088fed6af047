// The rules of an AttentionPlan: every resolved layer is held to those of its mode, the plan to what ties its layers together.
#include <algorithm>
#include <bit>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

}  // namespace plan

namespace {

using plan::check_range;

Status invalid(std::string message) { return {Code::invalid_argument, std::move(message)}; }

std::string at(std::string_view list, size_t i, std::string_view field = "") {
  return std::string(list) + "[" + std::to_string(i) + "]" + (field.empty() ? "" : ".") + std::string(field);
}

// `must` completes "<field> is <value>, must be ...".
Status violated(std::string_view field, int64_t value, const std::string& must) {
  return invalid(std::string(field) + " is " + std::to_string(value) + ", must be " + must);
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

std::string mode_text(Mode mode) { return "mode " + plan::name(plan::mode_names(), mode); }

template <typename T>
Status check_name(std::string_view field, T value, std::span<const std::string_view> names) {
  if (static_cast<size_t>(value) < names.size()) return {};
  return invalid(std::string(field) + " is none of " + plan::join(names));
}

Status check_names(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_name("mode", p.mode, plan::mode_names()));
  BOUGH_RETURN_IF_ERROR(check_name("scan", p.scan, plan::scan_names()));
  BOUGH_RETURN_IF_ERROR(check_name("positions", p.positions, plan::positions_names()));
  BOUGH_RETURN_IF_ERROR(check_name("lists", p.lists, plan::lists_names()));
  BOUGH_RETURN_IF_ERROR(check_name("pool", p.pool, plan::pool_names()));
  if (p.first) BOUGH_RETURN_IF_ERROR(check_name("first.scan", p.first->scan, plan::scan_names()));
  if (p.tree) BOUGH_RETURN_IF_ERROR(check_name("tree.rep", p.tree->rep, plan::representative_names()));
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const LayerOverride& o = p.layers[i];
    BOUGH_RETURN_IF_ERROR(check_name(at("layers", i, "mode"), o.mode.value_or(p.mode), plan::mode_names()));
    BOUGH_RETURN_IF_ERROR(check_name(at("layers", i, "scan"), o.scan.value_or(p.scan), plan::scan_names()));
    BOUGH_RETURN_IF_ERROR(check_name(at("layers", i, "positions"), o.positions.value_or(p.positions), plan::positions_names()));
    if (o.tree) BOUGH_RETURN_IF_ERROR(check_name(at("layers", i, "tree.rep"), o.tree->rep, plan::representative_names()));
  }
  return {};
}

Status check_layer_numbers(const AttentionPlan& p) {
  if (p.first) BOUGH_RETURN_IF_ERROR(check_range("first.layers", p.first->layers, 0, plan::kMaxLayers));
  std::vector<bool> named(plan::kMaxLayers);
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const std::vector<int>& layers = p.layers[i].layers;
    if (layers.empty()) return invalid(at("layers", i, "layers") + " is empty, must name at least one layer");
    for (size_t j = 0; j < layers.size(); ++j) {
      const std::string field = at(at("layers", i, "layers"), j);
      BOUGH_RETURN_IF_ERROR(check_range(field, layers[j], 0, plan::kMaxLayers - 1));
      if (j > 0 && layers[j] <= layers[j - 1])
        return violated(field, layers[j], "above the one before it, " + std::to_string(layers[j - 1]));
      if (named[static_cast<size_t>(layers[j])]) return violated(field, layers[j], "a layer that no other entry names");
      named[static_cast<size_t>(layers[j])] = true;
    }
  }
  return {};
}

// A setting is never ignored in silence: what no layer uses has to be empty.
Status check_unused(const AttentionPlan& p) {
  const auto has = [&p](Mode mode) {
    if (p.mode == mode) return true;
    return std::any_of(p.layers.begin(), p.layers.end(), [&](const LayerOverride& o) { return o.mode.value_or(p.mode) == mode; });
  };
  const std::string mode = mode_text(p.mode);
  if (!has(Mode::stages)) {
    if (!p.stages.empty()) return invalid("stages has " + std::to_string(p.stages.size()) + " entries, but " + mode + " has none");
    if (p.first) return invalid("first is set, but " + mode + " has no stages");
    if (p.row_k != 0) return violated("row_k", p.row_k, "0 in " + mode);
    if (p.k != 0) return violated("k", p.k, "0 in " + mode + (p.mode == Mode::hip ? ", whose k is tree.k" : ""));
  }
  if (!has(Mode::hip) && p.tree) return invalid("tree is set, but " + mode + " has none");
  if (has(Mode::stages) || has(Mode::hip) || has(Mode::streaming)) return {};
  const std::pair<std::string_view, int64_t> unused[] = {
      {"sinks", p.sinks}, {"window", p.window}, {"tail", p.tail}, {"dense_below", p.dense_below}};
  for (const auto& [field, value] : unused) {
    if (value != 0) return violated(field, value, "0 in " + mode);
  }
  if (p.positions != Positions::rank) {
    return invalid("positions is " + plan::name(plan::positions_names(), p.positions) + ", but in mode dense every position is true");
  }
  return {};
}

Status check_unused(const LayerOverride& o, Mode mode, const std::string& prefix) {
  const bool selects = mode == Mode::stages || mode == Mode::hip;
  const bool sparse = mode != Mode::dense;
  const struct {
    std::string_view field;
    bool given, used;
  } all[] = {{"sinks", o.sinks.has_value(), sparse},
             {"window", o.window.has_value(), sparse},
             {"positions", o.positions.has_value(), sparse},
             {"k", o.k.has_value(), selects},
             {"scan", o.scan.has_value(), selects},
             {"stages", o.stages.has_value(), mode == Mode::stages},
             {"row_k", o.row_k.has_value(), mode == Mode::stages},
             {"tree", o.tree.has_value(), mode == Mode::hip}};
  for (const auto& f : all) {
    if (f.given && !f.used) return invalid(prefix + std::string(f.field) + " is set, but " + mode_text(mode) + " does not use it");
  }
  return {};
}

Status check_sinks_window(const LayerPlan& l, const std::string& prefix) {
  const std::string_view grain = l.mode == Mode::hip ? "tree.key_block" : "the last chunk";
  const int64_t chunk = l.last_chunk();
  BOUGH_RETURN_IF_ERROR(check_range(prefix + "sinks", l.sinks, 0, plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple(prefix + "sinks", l.sinks, 64, "the page size"));
  BOUGH_RETURN_IF_ERROR(check_multiple(prefix + "sinks", l.sinks, chunk, grain));
  BOUGH_RETURN_IF_ERROR(check_range(prefix + "window", l.window, chunk, plan::kMaxTokens));
  return check_multiple(prefix + "window", l.window, chunk, grain);
}

Status check_query_block(const std::string& prefix, int block, int stride, int common) {
  if (block != 16 && block != 32 && block != 64) return violated(prefix + "query_block", block, "16, 32 or 64");
  if (block != common) return violated(prefix + "query_block", block, "that of the first stage or tree, " + std::to_string(common));
  if (stride < 1 || block % stride != 0) {
    return violated(prefix + "query_stride", stride, "a divisor of query_block " + std::to_string(block));
  }
  return {};
}

Status check_pieces(const std::string& prefix, size_t i, const StagePlan& stage) {
  for (const auto& [name, piece] : {std::pair{"piece", stage.piece}, {"row_piece", stage.row_piece}}) {
    if (piece >= 0 && (piece == 0 || stage.chunk % piece == 0)) continue;
    return violated(prefix + at("stages", i, name), piece, "0 or a divisor of the chunk " + std::to_string(stage.chunk));
  }
  if (stage.piece > 0 && stage.rounds > 0) return violated(prefix + at("stages", i, "piece"), stage.piece, "0 where a stage has rounds");
  if (i == 0 && stage.row_piece > 0) {
    return violated(prefix + at("stages", i, "row_piece"), stage.row_piece, "0: one summary serves the first stage of all query blocks");
  }
  return {};
}

// Chunk sizes and query blocks, stage by stage. After it every chunk is a power of two.
Status check_shapes(const LayerPlan& l, int query_block, const std::string& prefix) {
  for (size_t i = 0; i < l.stages.size(); ++i) {
    const StagePlan& stage = l.stages[i];
    const std::string field = prefix + at("stages", i, "chunk");
    BOUGH_RETURN_IF_ERROR(check_range(field, stage.chunk, 1, plan::kMaxChunk));
    if (!std::has_single_bit(static_cast<unsigned>(stage.chunk))) {
      return violated(field, stage.chunk, "a power of two from 1 to " + std::to_string(plan::kMaxChunk));
    }
    if (i > 0 && l.stages[i - 1].chunk % stage.chunk != 0) {
      return violated(field, stage.chunk, "a divisor of the previous chunk " + std::to_string(l.stages[i - 1].chunk));
    }
    BOUGH_RETURN_IF_ERROR(
        check_range(prefix + at("stages", i, "rounds"), stage.rounds, 0, std::bit_width(static_cast<unsigned>(stage.chunk))));
    BOUGH_RETURN_IF_ERROR(check_pieces(prefix, i, stage));
    BOUGH_RETURN_IF_ERROR(check_query_block(prefix + at("stages", i) + ".", stage.query_block, stage.query_stride, query_block));
  }
  return {};
}

// What single rows keep follows the rules of keep: among themselves the stages pass on no more than entered them.
Status check_row_keep(const LayerPlan& l, size_t i, const std::string& prefix, std::string_view k_name) {
  const std::string field = prefix + at("stages", i, "row_keep");
  const int64_t keep = l.stages[i].of_block(1).keep, before = l.stages[i - 1].of_block(1).keep;
  if (l.stages[i].row_keep != 0) {
    BOUGH_RETURN_IF_ERROR(check_range(field, keep, 0, plan::kMaxTokens));
    BOUGH_RETURN_IF_ERROR(check_multiple(field, keep, l.stages[i - 1].chunk, "the previous chunk"));
    BOUGH_RETURN_IF_ERROR(check_at_least(field, keep, l.k, k_name));
  }
  if (i == 1 || keep <= before) return {};
  return invalid(field + " is " + std::to_string(l.stages[i].row_keep) + ", so single rows pass on " + std::to_string(keep) +
                 " tokens, must be at most the " + std::to_string(before) + " that entered the stage before");
}

Status check_row_k(const LayerPlan& l, const std::string& prefix) {
  if (l.row_k == 0) return {};
  BOUGH_RETURN_IF_ERROR(check_range(prefix + "row_k", l.row_k, 0, plan::kMaxTokens));
  return check_multiple(prefix + "row_k", l.row_k, l.last_chunk(), "the last chunk");
}

Status check_keeps(const LayerPlan& l, const std::string& prefix, std::string_view k_name) {
  for (const auto& [name, keep] : {std::pair{"keep", l.stages[0].keep}, {"row_keep", l.stages[0].row_keep}}) {
    if (keep != 0) return violated(prefix + at("stages", 0, name), keep, "0: all tokens enter the first stage");
  }
  for (size_t i = 1; i < l.stages.size(); ++i) {
    const std::string field = prefix + at("stages", i, "keep");
    const int64_t keep = l.stages[i].keep;
    BOUGH_RETURN_IF_ERROR(check_range(field, keep, 1, plan::kMaxTokens));
    BOUGH_RETURN_IF_ERROR(check_multiple(field, keep, l.stages[i - 1].chunk, "the previous chunk"));
    if (i > 1) BOUGH_RETURN_IF_ERROR(check_at_most(field, keep, l.stages[i - 1].keep, "the previous keep"));
    BOUGH_RETURN_IF_ERROR(check_at_least(field, keep, l.k, k_name));
    BOUGH_RETURN_IF_ERROR(check_row_keep(l, i, prefix, k_name));
  }
  return {};
}

// Tokens that leave the window between two runs of the first stage have to be candidates already, hence the bound on refresh[0];
// a stage runs whenever an earlier one does, hence the divisibility.
Status check_stage_refresh(const LayerPlan& l, const std::string& prefix) {
  if (l.refresh.size() != l.stages.size()) {
    return invalid("refresh has " + std::to_string(l.refresh.size()) + " intervals, must have as many as " + prefix + "stages, " +
                   std::to_string(l.stages.size()));
  }
  for (size_t i = 0; i < l.refresh.size(); ++i) {
    BOUGH_RETURN_IF_ERROR(check_range(at("refresh", i), l.refresh[i], 1, plan::kMaxInterval));
    if (i > 0 && l.refresh[i - 1] % l.refresh[i] != 0) {
      return violated(at("refresh", i), l.refresh[i], "a divisor of the previous interval " + std::to_string(l.refresh[i - 1]));
    }
  }
  return check_at_most("refresh[0]", l.refresh[0], l.window - l.stages[0].chunk, prefix + "window - " + prefix + "stages[0].chunk,");
}

Status check_stages(const LayerPlan& l, int query_block, const std::string& prefix, const std::string& k_name) {
  BOUGH_RETURN_IF_ERROR(check_range("the number of " + prefix + "stages", static_cast<int64_t>(l.stages.size()), 1, plan::kMaxStages));
  BOUGH_RETURN_IF_ERROR(check_shapes(l, query_block, prefix));
  BOUGH_RETURN_IF_ERROR(check_sinks_window(l, prefix));
  BOUGH_RETURN_IF_ERROR(
      check_at_least(prefix + "window", l.window, 2 * int64_t{l.stages[0].chunk}, "twice " + prefix + "stages[0].chunk,"));
  BOUGH_RETURN_IF_ERROR(check_range(k_name, l.k, l.last_chunk(), plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple(k_name, l.k, l.last_chunk(), "the last chunk"));
  BOUGH_RETURN_IF_ERROR(check_row_k(l, prefix));
  BOUGH_RETURN_IF_ERROR(check_keeps(l, prefix, k_name));
  return check_stage_refresh(l, prefix);
}

Status check_tree(const LayerPlan& l, int query_block, const std::string& prefix) {
  const std::string tree = prefix + "tree.";
  BOUGH_RETURN_IF_ERROR(check_range(tree + "key_block", l.tree.key_block, 1, plan::kMaxKeyBlock));
  if (!std::has_single_bit(static_cast<unsigned>(l.tree.key_block))) {
    return violated(tree + "key_block", l.tree.key_block, "a power of two from 1 to " + std::to_string(plan::kMaxKeyBlock));
  }
  if (l.tree.key_stride < 1 || l.tree.key_block % l.tree.key_stride != 0) {
    return violated(tree + "key_stride", l.tree.key_stride, "a divisor of key_block " + std::to_string(l.tree.key_block));
  }
  BOUGH_RETURN_IF_ERROR(check_query_block(tree, l.tree.query_block, l.tree.query_stride, query_block));
  BOUGH_RETURN_IF_ERROR(check_sinks_window(l, prefix));
  BOUGH_RETURN_IF_ERROR(check_range(tree + "k", l.k, l.tree.key_block, plan::kMaxTokens));
  BOUGH_RETURN_IF_ERROR(check_multiple(tree + "k", l.k, l.tree.key_block, "key_block"));
  BOUGH_RETURN_IF_ERROR(check_range(tree + "refresh", l.tree.refresh, 1, plan::kMaxInterval));
  return check_at_most(tree + "refresh", l.tree.refresh, l.window, prefix + "window");
}

Status check_streaming(const LayerPlan& l, const std::string& prefix) {
  BOUGH_RETURN_IF_ERROR(check_sinks_window(l, prefix));
  if (l.refresh.empty()) return invalid("refresh has 0 entries, mode streaming has exactly 1");
  BOUGH_RETURN_IF_ERROR(check_range("refresh[0]", l.refresh[0], 1, plan::kMaxInterval));
  return check_at_most("refresh[0]", l.refresh[0], l.window, "the " + prefix + "window");
}

Status check_layer(const LayerPlan& l, int query_block, const std::string& prefix, const std::string& k_name) {
  switch (l.mode) {
    case Mode::dense: return {};
    case Mode::streaming: return check_streaming(l, prefix);
    case Mode::hip: return check_tree(l, query_block, prefix);
    case Mode::stages: break;
  }
  return check_stages(l, query_block, prefix, k_name);
}

// Layers of different modes have one list of intervals: as many as stages, one for streaming alone, none without either.
Status check_refresh_count(const AttentionPlan& p, const std::vector<LayerPlan>& layers) {
  bool stages = false, streaming = false;
  for (const LayerPlan& l : layers) {
    stages = stages || l.mode == Mode::stages;
    streaming = streaming || l.mode == Mode::streaming;
  }
  const size_t most = streaming ? 1 : 0;
  if (stages || p.refresh.size() == most) return {};
  const std::string has = "refresh has " + std::to_string(p.refresh.size()) + " entries, ";
  if (streaming) return invalid(has + "mode streaming has exactly 1");
  return invalid(has + "but " + mode_text(p.mode) + " has none" + (p.mode == Mode::hip ? ", its interval is tree.refresh" : ""));
}

}  // namespace

Status validate_plan(const AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_names(p));
  BOUGH_RETURN_IF_ERROR(check_layer_numbers(p));
  BOUGH_RETURN_IF_ERROR(check_unused(p));
  BOUGH_RETURN_IF_ERROR(check_range("tail", p.tail, 0, plan::kMaxTail));
  BOUGH_RETURN_IF_ERROR(check_range("dense_below", p.dense_below, 0, plan::kMaxTokens));
  const int query_block = p.query_block();
  const std::vector<LayerPlan> layers = p.distinct_layers();
  BOUGH_RETURN_IF_ERROR(check_layer(layers.front(), query_block, "", layers.front().mode == Mode::hip ? "tree.k" : "k"));
  if (p.first && layers.front().mode == Mode::stages) {
    LayerPlan first = layers.front();
    first.k = p.first->k;
    BOUGH_RETURN_IF_ERROR(check_layer(first, query_block, "", "first.k"));
  }
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const LayerOverride& o = p.layers[i];
    const std::string prefix = at("layers", i) + ".";
    BOUGH_RETURN_IF_ERROR(check_unused(o, o.mode.value_or(p.mode), prefix));
    for (const int layer : o.layers) BOUGH_RETURN_IF_ERROR(check_layer(p.layer(layer), query_block, prefix, prefix + "k"));
  }
  return check_refresh_count(p, layers);
}

}  // namespace bough
