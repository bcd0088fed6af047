// An AttentionPlan's layers: how `first` and `layers` resolve, and what follows from them.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "attention/plan_parts.h"
#include "bough/attention.h"

namespace bough {
namespace plan {

std::span<const std::string_view> mode_names() {
  static constexpr std::array<std::string_view, 4> names = {"stages", "hip", "streaming", "dense"};
  return names;
}

std::span<const std::string_view> scan_names() {
  static constexpr std::array<std::string_view, 5> names = {"relative", "chunk-indexed", "infllm", "dynamic-extend", "self-extend"};
  return names;
}

std::span<const std::string_view> positions_names() {
  static constexpr std::array<std::string_view, 5> names = {"rank", "streaming", "infllm", "dynamic-extend", "true"};
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

std::span<const std::string_view> representative_names() {
  static constexpr std::array<std::string_view, 3> names = {"center", "first", "last"};
  return names;
}

std::string join(std::span<const std::string_view> names) {
  std::string text;
  for (std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

}  // namespace plan

namespace {

// A layer that no plan names.
constexpr int kUnnamed = static_cast<int>(plan::kMaxLayers);

const LayerOverride& override_of(const AttentionPlan& p, int layer) {
  static const LayerOverride none;
  for (const LayerOverride& o : p.layers) {
    if (std::find(o.layers.begin(), o.layers.end(), layer) != o.layers.end()) return o;
  }
  return none;
}

void resolve_selection(const AttentionPlan& p, const LayerOverride& o, int index, LayerPlan& layer) {
  const bool is_first = layer.mode == Mode::stages && p.first && index < p.first->layers;
  layer.scan = o.scan.value_or(is_first ? p.first->scan : p.scan);
  if (layer.mode == Mode::stages) {
    layer.stages = o.stages.value_or(p.stages);
    layer.k = o.k.value_or(is_first ? p.first->k : p.k);
    layer.row_k = o.row_k.value_or(p.row_k);
    layer.refresh = p.refresh;
  } else {
    layer.tree = o.tree.value_or(p.tree.value_or(TreePlan{}));
    layer.k = o.k.value_or(layer.tree.k);
    layer.tree.k = layer.k;
    layer.refresh = {layer.tree.refresh};
  }
}

}  // namespace

StagePlan StagePlan::of_block(int rows) const {
  const bool pieces = rows == 1 && row_piece > 0;
  const int64_t entering = rows == 1 && row_keep > 0 ? row_keep : keep;
  return {chunk, entering, query_block, query_stride, pieces ? 0 : rounds, pieces ? row_piece : piece, 0, 0};
}

int64_t LayerPlan::kept_after(size_t stage, int rows) const {
  return stage + 1 < stages.size() ? stages[stage + 1].of_block(rows).keep : selected(rows);
}

int64_t LayerPlan::context_tokens() const {
  if (mode == Mode::dense) return 0;
  return sinks + window + k + std::max<int64_t>(plan::kMaxQueryBlock, last_chunk()) + last_refresh();
}

LayerPlan AttentionPlan::layer(int index) const {
  const LayerOverride& o = override_of(*this, index);
  LayerPlan layer;
  layer.mode = o.mode.value_or(mode);
  if (layer.mode == Mode::dense) return layer;
  layer.sinks = o.sinks.value_or(sinks);
  layer.window = o.window.value_or(window);
  layer.positions = o.positions.value_or(positions);
  if (layer.mode != Mode::streaming) {
    resolve_selection(*this, o, index, layer);
  } else if (!refresh.empty()) {
    layer.refresh = {refresh.back()};
  }
  return layer;
}

std::vector<LayerPlan> AttentionPlan::distinct_layers() const {
  std::vector<LayerPlan> distinct = {layer(kUnnamed)};
  const auto add = [&distinct, this](int index) {
    LayerPlan l = layer(index);
    if (std::find(distinct.begin(), distinct.end(), l) == distinct.end()) distinct.push_back(std::move(l));
  };
  const int first_layers = first ? std::min(first->layers, kUnnamed) : 0;
  for (int i = 0; i < first_layers; ++i) add(i);
  for (const LayerOverride& o : layers) {
    for (const int i : o.layers) add(i);
  }
  return distinct;
}

int AttentionPlan::query_block() const {
  for (const LayerPlan& l : distinct_layers()) {
    if (l.mode == Mode::hip) return l.tree.query_block;
    if (!l.stages.empty()) return l.stages.front().query_block;
  }
  return static_cast<int>(plan::kMaxQueryBlock);
}

int64_t AttentionPlan::max_k() const {
  int64_t most = 0;
  for (const LayerPlan& l : distinct_layers()) most = std::max(most, l.k);
  return most;
}

int64_t AttentionPlan::context_tokens() const {
  int64_t most = 0;
  for (const LayerPlan& l : distinct_layers()) most = std::max(most, l.context_tokens());
  return most;
}

int AttentionPlan::longest_refresh() const {
  int most = 1;
  for (const LayerPlan& l : distinct_layers()) {
    for (const int interval : l.refresh) most = std::max(most, interval);
  }
  return most;
}

}  // namespace bough
