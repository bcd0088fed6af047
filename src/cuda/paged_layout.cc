#include "cuda/paged_layout.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "attention/paged_shape.h"
#include "base/check.h"

namespace bough::cuda {
namespace {

constexpr int kMostSequences = 1024;

// Keys of each mean that the plan's stages read; 0: they read none.
int mean_keys(const LayerPlan& l) {
  int keys = 0;
  for (const StagePlan& stage : l.stages) keys = std::max({keys, stage.piece, stage.row_piece});
  return keys > 1 ? keys : 0;
}

const char* name_of(ElementType type) {
  switch (type) {
    case ElementType::f16: return "f16";
    case ElementType::bf16: return "bf16";
    case ElementType::e4m3: return "e4m3";
    case ElementType::i8: return "int8";
  }
  return "unknown";
}

Status check_shape(const PagedShape& s) {
  BOUGH_RETURN_IF_ERROR(check_paged_shape(s));
  if (s.q_type != ElementType::f16 && s.q_type != ElementType::bf16) {
    return {Code::invalid_argument, std::string("q_type is ") + name_of(s.q_type) + ", it must be f16 or bf16"};
  }
  if (s.kv_type != s.q_type && s.kv_type != ElementType::e4m3 && s.kv_type != ElementType::i8) {
    return {Code::invalid_argument,
            std::string("kv_type is ") + name_of(s.kv_type) + ", it must be that of q, " + name_of(s.q_type) + ", or e4m3 or int8"};
  }
  if (s.page_tokens < 8 || s.page_tokens > 1024 || !std::has_single_bit(static_cast<unsigned>(s.page_tokens))) {
    return must_be("page_tokens", s.page_tokens, "a power of two from 8 to 1024");
  }
  if (!built(s.q_type, s.kv_type, s.head_dim)) {
    return {Code::unsupported, std::string("this build has no kernels for q in ") + name_of(s.q_type) + ", KV in " + name_of(s.kv_type) +
                                   " and head dim " + std::to_string(s.head_dim)};
  }
  return {};
}

Status check_limits(const PagedLimits& l, const PagedShape& s) {
  if (l.sequences < 1 || l.sequences > kMostSequences)
    return must_be("limits.sequences", l.sequences, "1 to " + std::to_string(kMostSequences));
  if (l.rows < 1 || l.rows > INT32_MAX / 2) return must_be("limits.rows", l.rows, "1 to 2^30");
  if (l.length < 1 || l.length > INT32_MAX / 2) return must_be("limits.length", l.length, "1 to 2^30");
  return check_rotated_length("limits.length", l.length, s);
}

// One plane of means serves all stages, and its rows do not straddle pages. Sinks are whole pieces, as they are whole chunks.
Status check_means(const LayerPlan& l, const PagedShape& s) {
  const int means = mean_keys(l);
  for (size_t i = 0; i < l.stages.size() && means > 0; ++i) {
    for (const auto& [name, piece] : {std::pair{"piece", l.stages[i].piece}, {"row_piece", l.stages[i].row_piece}}) {
      const std::string is = "the plan's stages[" + std::to_string(i) + "]." + name + " is " + std::to_string(piece);
      if (piece > 1 && piece != means) {
        return {Code::unsupported, is + " and another stage's is " + std::to_string(means) + "; CUDA kernels read means of one size"};
      }
      if (piece > s.page_tokens) {
        return {Code::unsupported, is + "; CUDA kernels read means of at most page_tokens keys, " + std::to_string(s.page_tokens)};
      }
    }
  }
  if (means > 0 && !built(s.q_type, s.q_type, s.head_dim)) {
    return {Code::unsupported, std::string("the plan's stages read means of keys, and this build has no kernels for q and KV in ") +
                                   name_of(s.q_type) + " and head dim " + std::to_string(s.head_dim)};
  }
  return {};
}

Status check_layer(const LayerPlan& l, const PagedShape& s) {
  if (s.sliding_window > 0) return {};
  BOUGH_RETURN_IF_ERROR(check_means(l, s));
  const int query_block = l.mode == Mode::hip ? l.tree.query_block : l.stages.empty() ? 64 : l.stages.front().query_block;
  if (query_block != 64) {
    return {Code::unsupported, "the plan's query_block is " + std::to_string(query_block) + "; CUDA kernels have blocks of 64"};
  }
  return {};
}

}  // namespace

int64_t Layout::blocks(int64_t rows, int64_t sequences) const { return rows / 64 + 2 * sequences + std::min(rows, tail * sequences); }

int32_t Layout::candidates(int stage, int64_t length) const {
  const Stages& s = problem.stages;
  if (stage == 0) return static_cast<int32_t>(std::max<int64_t>(1, (length - problem.sinks + s.chunk[0] - 1) / s.chunk[0] + 1));
  return s.most_kept(stage - 1) * (s.chunk[stage - 1] / s.chunk[stage]) + (added + s.chunk[0]) / s.chunk[stage] + 2;
}

void Layout::carve_lists(Carver& carver, int64_t owners, Lists& lists) const {
  if (!searches()) {  // selections that are all empty
    lists.start[0] = carver.take<int32_t>(1);
    lists.meta[0] = carver.take<Meta>(owners);
  }
  for (int i = 1; i <= problem.stages.count; ++i) {
    lists.capacity[i] = problem.stages.most_kept(i - 1);
    lists.start[i] = carver.take<int32_t>(owners * problem.list_heads * lists.capacity[i]);
    lists.meta[i] = carver.take<Meta>(owners);
  }
}

Layout::Workspace Layout::workspace(void* memory) const {
  Carver carver(memory);
  Workspace w;
  const int64_t nb = blocks(limits.rows, limits.sequences);
  w.room = static_cast<int32_t>(nb);
  w.blocks = carver.take<BlockInfo>(nb);
  carve_lists(carver, nb, w.lists);
  if (searches()) {
    w.scores = carver.take<uint32_t>(nb * problem.list_heads * problem.score_capacity);
    w.halves = carver.take<Branch>(nb * problem.list_heads * 4 * problem.tree.branches);
    w.live = carver.take<int32_t>(nb * problem.list_heads);
    w.turned = carver.take<uint16_t>(nb * 2 * problem.heads * problem.d);
    Problem p = problem;
    p.nb = static_cast<int32_t>(nb);
    w.images = carver.take<std::byte>(static_cast<int64_t>(image_bytes(p)));
  }
  if (set_capacity > 0) {
    const int64_t heads = static_cast<int64_t>(limits.sequences) * problem.kv_heads;
    w.sets.splits = (set_capacity + split_keys(problem.d) - 1) / split_keys(problem.d);
    w.sets.part_o = carver.take<float>(heads * w.sets.splits * problem.group * problem.d);
    w.sets.part_ml = carver.take<float>(heads * w.sets.splits * problem.group * 2);
    w.sets.done = carver.take<int32_t>(heads);
  }
  w.bytes = carver.used();
  return w;
}

Layout::States Layout::states(void* memory, int64_t slots) const {
  Carver carver(memory);
  States s;
  carve_lists(carver, slots, s.lists);
  if (set_capacity > 0) {
    const int64_t elements = slots * problem.kv_heads * set_capacity * problem.d;
    s.sets.shift = carver.take<int32_t>(slots);
    if (moves(problem.positions)) s.sets.w0 = carver.take<int32_t>(slots);
    s.sets.k = carver.take<uint16_t>(elements);
    s.sets.v = carver.take<uint16_t>(elements);
    s.sets.capacity = set_capacity;
  }
  s.bytes = std::max<size_t>(carver.used(), 256);
  return s;
}

namespace {

void place_shape(const PagedShape& s, Problem& p) {
  p.heads = s.heads;
  p.kv_heads = s.kv_heads;
  p.group = s.heads / s.kv_heads;
  p.d = s.head_dim;
  p.q_type = s.q_type;
  p.kv_type = s.kv_type;
  p.scale = s.scale > 0 ? s.scale : 1.0F / std::sqrt(static_cast<float>(s.head_dim));
  p.softcap = s.softcap;
  p.sliding = static_cast<int32_t>(s.sliding_window);
  p.cache.page_shift = std::countr_zero(static_cast<unsigned>(s.page_tokens));
  p.as_given = s.keys_rotated;
  p.trained_context = static_cast<int32_t>(s.trained_context);
}

void place_tree(const LayerPlan& l, Problem& p) {
  p.scan_window = static_cast<int32_t>(l.window);
  p.pool = Pool::strided;
  p.tree.branches = static_cast<int32_t>(l.k / l.tree.key_block);
  p.tree.key_stride = l.tree.key_stride;
  p.tree.rep = l.tree.rep;
  p.stages.count = 1;
  p.stages.chunk[0] = l.tree.key_block;
  p.stages.shift[0] = std::countr_zero(static_cast<unsigned>(l.tree.key_block));
  p.stages.stride[0] = l.tree.query_stride;
  p.stages.keep[0] = p.stages.row_keep[0] = p.tree.branches;
}

void place_layer(const LayerPlan& l, const AttentionPlan& plan, Problem& p) {
  const bool turns = p.sliding == 0 && !p.as_given;  // a sliding window always counts by rank
  p.positions = turns ? l.positions : Positions::rank;
  p.placement.dense = l.mode == Mode::dense;
  p.placement.window = static_cast<int32_t>(l.window);
  p.placement.selected = static_cast<int32_t>(l.k);
  p.placement.dense_below = static_cast<int32_t>(plan.dense_below);
  p.placement.last_shift = std::countr_zero(static_cast<unsigned>(l.last_chunk()));
  p.placement.due_limit = std::max(1, static_cast<int32_t>(l.refresh.size()));
  p.list_heads = plan.lists == bough::Lists::layer ? 1 : p.kv_heads;
  p.pool = plan.pool;
  if (p.sliding > 0) return;
  p.sinks = static_cast<int32_t>(l.sinks);
  p.scan = l.scan;
  if (l.mode == Mode::hip) return place_tree(l, p);
  if (l.mode != Mode::stages) return;
  p.scan_window = static_cast<int32_t>(std::max<int64_t>(0, l.window - l.stages.front().chunk));
  p.stages.count = static_cast<int32_t>(l.stages.size());
  for (size_t i = 0; i < l.stages.size(); ++i) {
    p.stages.chunk[i] = l.stages[i].chunk;
    p.stages.shift[i] = std::countr_zero(static_cast<unsigned>(l.stages[i].chunk));
    p.stages.rounds[i] = l.stages[i].descent_rounds();
    p.stages.piece[i] = l.stages[i].piece;
    p.stages.row_piece[i] = l.stages[i].row_piece;
    p.stages.piece_shift[i] = l.stages[i].piece > 0 ? std::countr_zero(static_cast<unsigned>(l.stages[i].piece)) : 0;
    p.stages.stride[i] = l.stages[i].query_stride;
    p.stages.keep[i] = static_cast<int32_t>(l.kept_after(i, 2) / l.stages[i].chunk);
    p.stages.row_keep[i] = static_cast<int32_t>(l.kept_after(i, 1) / l.stages[i].chunk);
  }
}

int32_t set_capacity_of(const Layout& layout) {
  const LayerPlan& l = layout.layer;
  int64_t keys = layout.shape.sliding_window + l.last_refresh();
  if (layout.shape.sliding_window == 0) {
    if (l.mode == Mode::dense) return 0;
    keys = std::max(l.context_tokens(), layout.plan.dense_below + l.last_refresh());
  }
  return static_cast<int32_t>((keys + 255) / 256 * 256);
}

}  // namespace

Result<Layout> make_layout(const AttentionPlan& plan, int layer, const PagedShape& shape, const PagedLimits& limits) {
  BOUGH_RETURN_IF_ERROR(check_shape(shape));
  BOUGH_RETURN_IF_ERROR(check_limits(limits, shape));
  if (layer < 0) return must_be("layer", layer, "0 or more");
  BOUGH_RETURN_IF_ERROR(validate_plan(plan));
  BOUGH_ASSIGN_OR_RETURN(FittedPlan fitted, fit_plan(plan, shape.trained_context, /*explicit_plan=*/false));
  Layout layout;
  layout.plan = std::move(fitted.plan);
  layout.layer = layout.plan.layer(layer);
  BOUGH_RETURN_IF_ERROR(check_layer(layout.layer, shape));
  layout.shape = shape;
  layout.limits = limits;
  place_shape(shape, layout.problem);
  place_layer(layout.layer, layout.plan, layout.problem);
  layout.tail = shape.sliding_window > 0 || layout.layer.mode == Mode::dense ? 0 : layout.plan.tail;
  layout.mean_keys = layout.problem.stages.count > 0 ? mean_keys(layout.layer) : 0;
  layout.added = layout.searches() ? static_cast<int32_t>(layout.layer.refresh.front()) : 0;
  layout.set_capacity = set_capacity_of(layout);
  const int32_t halves = 2 * layout.problem.tree.branches;
  layout.problem.score_capacity = halves;
  for (int i = 0; i < layout.problem.stages.count && halves == 0; ++i) {
    layout.problem.score_capacity = std::max(layout.problem.score_capacity, layout.candidates(i, limits.length));
  }
  return layout;
}

}  // namespace bough::cuda
