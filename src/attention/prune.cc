#include "attention/prune.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace bough {
namespace {

// Chunks that one search adds to a summary at most; a slice of a text has no more. Means that are lacking are made again by each search,
// from all keys, so more of them are kept at a time, but not so many that a first answer waits for the memory they take.
constexpr int64_t kSummaryStep = 128;
constexpr int64_t kMeansStep = 2048;

}  // namespace

AttentionSetup::AttentionSetup(AttentionPlan fitted, const KvShape& kv_shape, const HeadShape& head_shape, int64_t trained,
                               const AttentionBodies* attention_bodies, std::vector<LayerAttention> of_model)
    : plan(std::move(fitted)),
      kv(kv_shape),
      heads(head_shape),
      trained_context(trained),
      bodies(attention_bodies),
      attention(std::move(of_model)) {
  for (int i = 0; i < kv.layers; ++i) layers.push_back(plan.layer(i));
}

int64_t AttentionSetup::rope_positions(int rope, int64_t length) const {
  int64_t most = 0;
  for (int i = 0; i < kv.layers; ++i) {
    const LayerAttention own = attention_of(i);
    if (own.rope != rope) continue;
    most = std::max(most, own.sliding_window > 0 ? std::min(length, own.sliding_window + kWindowGrain) : positions_of(layer(i), length));
  }
  return most + RopeTable::kTile;
}

// Of a layer that sees all keys. A working set that holds every token grows until the next refresh.
int64_t AttentionSetup::positions_of(const LayerPlan& l, int64_t length) const {
  int64_t most = std::max(l.context_tokens(), std::min(length, plan.dense_below + l.last_refresh()));
  if (l.mode == Mode::dense) most = std::max(most, length);
  most = std::max(most, ContextPositions::table_positions({l.positions, l.window, trained_context}, most, length));
  if (l.scan != Scan::relative && l.scan != Scan::infllm) most = std::max(most, trained_context);
  return most;
}

// Chunks that go into a stage at most: what the stage before keeps, split, and what leaves the window between its refreshes; never
// more than the longest text has.
int64_t Pruner::capacity_of(const Call& call, int stage) {
  const StagePlan& s = call.plan.stages[static_cast<size_t>(stage)];
  const int64_t first_chunk = call.plan.stages.front().chunk;
  return (std::min(std::max(s.keep, s.row_keep) + call.plan.refresh.front(), call.longest) + first_chunk) / s.chunk + 2;
}

// Chunks that survive a stage in a block of so many rows.
int64_t Pruner::keep_after(const Call& call, int stage, int rows) {
  const LayerPlan& plan = call.plan;
  const auto i = static_cast<size_t>(stage);
  return std::min(plan.kept_after(i, rows), call.longest + plan.stages.front().chunk) / plan.stages[i].chunk;
}

// w0 of every block and the first stage that it runs.
void Pruner::place_windows(const Call& call) {
  const LayerPlan& plan = call.plan;
  const int64_t window = setup_->attention_of(call.layer).sliding_window;
  const auto none = static_cast<int32_t>(plan.stages.size());
  const auto& blocks = call.batch.blocks;
  w0_.assign(blocks.size(), 0);
  first_.assign(blocks.size(), none);
  renewed_.assign(blocks.size(), 0);
  refreshed_.assign(static_cast<size_t>(call.batch.decode_rows), 0);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const QueryBlock& block = blocks[b];
    if (window > 0) {
      w0_[b] = std::max<int64_t>(0, block.r0 + 1 - window);
      continue;
    }
    if (setup_->is_dense(call.layer, block.r1())) continue;
    if (b < refreshed_.size()) {
      const LayerState& state = call.state(b);
      const int due = first_refreshed_stage(plan.refresh, call.states[b]->counter);
      if (due == static_cast<int>(plan.refresh.size())) continue;
      first_[b] = state.searched ? static_cast<int32_t>(std::min(due, static_cast<int>(none))) : 0;
      refreshed_[b] = 1;
    } else {
      first_[b] = 0;
    }
    renewed_[b] = 1;
    w0_[b] = window_start(block.r0, block.r1(), plan.sinks, plan.window, plan.last_chunk());
  }
}

// Decode blocks that begin at this stage: the saved inputs, and the chunks of text that has left the window since they were saved.
void Pruner::load_inputs(const Call& call, int stage) {
  const int list_heads = setup_->list_heads();
  const int chunk = call.plan.stages[static_cast<size_t>(stage)].chunk;
  for (size_t b = 0; b < refreshed_.size(); ++b) {
    if (first_[b] != stage) continue;
    StageInput& saved = call.state(b).inputs[static_cast<size_t>(stage - 1)];
    int32_t count = 0;
    for (int h = 0; h < list_heads; ++h) {
      int32_t* out = &inputs_.start[(b * static_cast<size_t>(list_heads) + static_cast<size_t>(h)) * static_cast<size_t>(inputs_.capacity)];
      std::copy_n(saved.start.data() + static_cast<ptrdiff_t>(h) * saved.count, saved.count, out);
      count = saved.count;
      for (int64_t start = saved.end; start < w0_[b]; start += chunk) out[count++] = static_cast<int32_t>(start);
    }
    saved.end += static_cast<int64_t>(count - saved.count) * chunk;
    inputs_.count[b] = count;
  }
}

void Pruner::save_inputs(const Call& call, int stage) {
  const auto list_heads = static_cast<size_t>(setup_->list_heads());
  for (size_t b = 0; b < refreshed_.size(); ++b) {
    if (first_[b] > stage) continue;
    LayerState& state = call.state(b);
    state.inputs.resize(call.plan.stages.size() - 1);
    StageInput& saved = state.inputs[static_cast<size_t>(stage - 1)];
    if (first_[b] < stage) saved.end = stage == 1 ? state.grid_end : state.inputs[static_cast<size_t>(stage - 2)].end;
    saved.count = inputs_.count[b];
    saved.start.resize(list_heads * static_cast<size_t>(saved.count));
    for (size_t h = 0; h < list_heads; ++h) {
      std::copy_n(&inputs_.start[(b * list_heads + h) * static_cast<size_t>(inputs_.capacity)], saved.count,
                  saved.start.begin() + static_cast<ptrdiff_t>(h) * saved.count);
    }
  }
}

// Do all candidates below `limit` survive? All lists of a block keep equally many: with different numbers the longer ones lose some.
bool Pruner::all_fit(const Candidates& candidates, int64_t block, int64_t limit, int64_t keep) {
  int64_t least = INT64_MAX, most = 0;
  for (int head = 0; head < candidates.list_heads; ++head) {
    int64_t n = candidates.count[block];
    while (n > 0 && candidates.at(block, head, n - 1) >= limit) --n;
    least = std::min(least, n);
    most = std::max(most, n);
  }
  return most <= keep && least == most;
}

// The summaries of the sequences whose blocks the first stage scores, towards the candidates that are whole: what a restored sequence
// lacks comes little by little, so that its first answer does not wait for it.
void Pruner::summarise(const Call& call, const Candidates& candidates) {
  std::vector<bool> done(call.batch.sequences.size());
  for (size_t b = call.batch.blocks.size(); b-- > 0;) {  // a sequence's last block has most candidates
    const auto seq = static_cast<size_t>(call.batch.blocks[b].seq);
    if (active_[b] == 0 || seq >= call.states.size() || done[seq]) continue;
    done[seq] = true;
    LayerState& state = call.state(seq);
    const PageTable& pages = call.batch.sequences[seq];
    const int64_t whole = std::min<int64_t>(candidates.count[b], (pages.length - candidates.sinks) / candidates.chunk);
    const int piece = call.plan.stages.front().piece;
    const int64_t most = state.summary.chunks + (piece > 0 ? kMeansStep : kSummaryStep);
    extend_summary(
        {setup_->kv, pages, call.layer, candidates.chunk, piece, candidates.sinks, std::min(whole, most), setup_->bodies->key_means},
        state.summary);
  }
}

void Pruner::find_summaries(const Call& call, const std::vector<uint8_t>& active) {
  summaries_.assign(call.batch.sequences.size(), nullptr);
  for (size_t b = 0; b < active.size(); ++b) {
    const auto seq = static_cast<size_t>(call.batch.blocks[b].seq);
    if (active[b] != 0 && seq < call.states.size()) summaries_[seq] = &call.state(seq).summary;
  }
}

// Scores of the active blocks. Those of one row have a search of their own where the stage names one.
template <typename Args>
Args Pruner::search_args(const Call& call) const {
  Args args;
  args.batch = &call.batch;
  args.kv = setup_->kv;
  args.heads = setup_->heads;
  args.layer = call.layer;
  args.q = call.q;
  args.scan = call.plan.scan;
  args.trained_context = setup_->trained_context;
  args.rope = &call.rope;
  return args;
}

void Pruner::scan(const Call& call, int stage, const Candidates& candidates, int64_t capacity) {
  const LayerPlan& plan = call.plan;
  const StagePlan& s = plan.stages[static_cast<size_t>(stage)];
  auto scan = search_args<ScanArgs>(call);
  scan.candidates = candidates;
  scan.query_stride = s.query_stride;
  scan.pool = setup_->plan.pool;
  scan.scan_window = std::max<int64_t>(0, plan.window - plan.stages.front().chunk);
  scan.scores = scores_.data();
  scan.score_capacity = capacity;
  const auto run = [&](const StagePlan& own, const std::vector<uint8_t>& active) {
    if (std::find(active.begin(), active.end(), 1) == active.end()) return;
    scan.active = active.data();
    scan.piece = own.piece;
    scan.rounds = own.descent_rounds();
    // A later stage finds in the summary what it holds of its own means.
    const bool held = stage == 0 || (own.piece > 1 && own.piece == plan.stages.front().piece);
    if (held) find_summaries(call, active);
    scan.summaries = held ? summaries_.data() : nullptr;
    setup_->bodies->scan(scan);
  };
  if (s.row_piece == 0) return run(s, active_);
  some_.assign(active_.size(), 0);
  for (const bool single : {false, true}) {
    for (size_t b = 0; b < active_.size(); ++b) some_[b] = active_[b] != 0 && (call.batch.blocks[b].rows == 1) == single ? 1 : 0;
    run(s.of_block(single ? 1 : 2), some_);
  }
}

// Scores the blocks whose candidates do not all fit, and keeps the best of each list.
void Pruner::score(const Call& call, int stage, const Candidates& candidates) {
  const LayerPlan& plan = call.plan;
  const int64_t keep = keep_after(call, stage, 2), row_keep = keep_after(call, stage, 1);
  const bool last = static_cast<size_t>(stage) + 1 == plan.stages.size();
  const size_t blocks = call.batch.blocks.size();
  active_.assign(blocks, 0);
  int64_t most = 0;
  for (size_t b = 0; b < blocks; ++b) {
    if (first_[b] > stage) continue;
    const int rows = call.batch.blocks[b].rows;
    if (all_fit(candidates, static_cast<int64_t>(b), last ? w0_[b] : INT64_MAX, rows == 1 ? row_keep : keep)) continue;
    active_[b] = 1;
    most = std::max<int64_t>(most, candidates.count[b]);
    chunks_scored_ += static_cast<int64_t>(candidates.count[b]) * setup_->kv.kv_heads;
    const StagePlan own = plan.stages[static_cast<size_t>(stage)].of_block(rows);
    keys_touched_ += static_cast<int64_t>(candidates.count[b]) * setup_->kv.kv_heads * own.probes();
  }
  scores_.resize(blocks * static_cast<size_t>(setup_->kv.kv_heads) * static_cast<size_t>(most));
  if (most > 0) {
    if (stage == 0) summarise(call, candidates);
    scan(call, stage, candidates, most);
  }
  Lists& kept = kept_[static_cast<size_t>(stage)];
  kept.capacity = std::max({keep, row_keep, int64_t{1}});
  kept.start.resize(blocks * static_cast<size_t>(setup_->list_heads()) * static_cast<size_t>(kept.capacity));
  SelectArgs select;
  select.batch = &call.batch;
  select.candidates = candidates;
  select.scored = active_.data();
  select.scores = scores_.data();
  select.score_capacity = most;
  select.kv_heads = setup_->kv.kv_heads;
  select.limit = last ? w0_.data() : nullptr;
  select.keep = keep;
  select.row_keep = row_keep;
  select.start = kept.start.data();
  select.count = kept.count.data();
  select.capacity = kept.capacity;
  setup_->bodies->select(select);
}

void Pruner::run_tree(const Call& call) {
  const LayerPlan& plan = call.plan;
  const size_t blocks = call.batch.blocks.size();
  Lists& kept = kept_.front();
  kept.capacity = std::max<int64_t>(1, std::min(plan.tree.k, call.longest) / plan.tree.key_block);
  kept.start.resize(blocks * static_cast<size_t>(setup_->list_heads()) * static_cast<size_t>(kept.capacity));
  keys_read_.assign(blocks, 0);
  auto tree = search_args<TreeArgs>(call);
  tree.active = renewed_.data();
  tree.w0 = w0_.data();
  tree.sinks = plan.sinks;
  tree.tree = plan.tree;
  tree.list_heads = setup_->list_heads();
  tree.window = plan.window;
  tree.start = kept.start.data();
  tree.count = kept.count.data();
  tree.capacity = kept.capacity;
  tree.keys_read = keys_read_.data();
  setup_->bodies->tree(tree);
  keys_touched_ = std::accumulate(keys_read_.begin(), keys_read_.end(), keys_touched_);
}

void Pruner::run_stage(const Call& call, int stage) {
  const LayerPlan& plan = call.plan;
  const StagePlan& s = plan.stages[static_cast<size_t>(stage)];
  const size_t blocks = call.batch.blocks.size();
  const int list_heads = setup_->list_heads();
  Candidates candidates;
  candidates.chunk = s.chunk;
  candidates.sinks = plan.sinks;
  candidates.list_heads = list_heads;
  if (stage == 0) {
    inputs_.count.assign(blocks, 0);
    for (size_t b = 0; b < blocks; ++b) {
      if (first_[b] != 0) continue;
      inputs_.count[b] = static_cast<int32_t>((std::max<int64_t>(0, w0_[b] - plan.sinks) + s.chunk - 1) / s.chunk);
      if (b < refreshed_.size()) {
        call.state(b).grid_end = plan.sinks + static_cast<int64_t>(inputs_.count[b]) * s.chunk;
      }
    }
  } else {
    inputs_.capacity = capacity_of(call, stage);
    inputs_.start.resize(blocks * static_cast<size_t>(list_heads) * static_cast<size_t>(inputs_.capacity));
    inputs_.count.assign(blocks, 0);
    const Lists& parents = kept_[static_cast<size_t>(stage) - 1];
    SplitArgs split;
    split.blocks = static_cast<int64_t>(blocks);
    split.list_heads = list_heads;
    split.parent = parents.start.data();
    split.parent_count = parents.count.data();
    split.parent_capacity = parents.capacity;
    split.parent_chunk = plan.stages[static_cast<size_t>(stage) - 1].chunk;
    split.chunk = s.chunk;
    split.start = inputs_.start.data();
    split.count = inputs_.count.data();
    split.capacity = inputs_.capacity;
    setup_->bodies->split(split);
    load_inputs(call, stage);
    save_inputs(call, stage);
    candidates.start = inputs_.start.data();
    candidates.capacity = inputs_.capacity;
  }
  candidates.count = inputs_.count.data();
  score(call, stage, candidates);
}

void Pruner::save_selected(const Call& call) {
  const auto list_heads = static_cast<size_t>(setup_->list_heads());
  const Lists& kept = kept_last(call);
  for (size_t b = 0; b < refreshed_.size(); ++b) {
    if (refreshed_[b] == 0) continue;
    LayerState& state = call.state(b);
    state.searched = !call.plan.stages.empty();
    state.w0 = w0_[b];
    state.selected_count = kept.count[b];
    state.selected.resize(list_heads * static_cast<size_t>(state.selected_count));
    for (size_t h = 0; h < list_heads; ++h) {
      std::copy_n(&kept.start[(b * list_heads + h) * static_cast<size_t>(kept.capacity)], state.selected_count,
                  state.selected.begin() + static_cast<ptrdiff_t>(h) * state.selected_count);
    }
  }
}

void Pruner::clear_kept(const Call& call) {
  const size_t blocks = call.batch.blocks.size();
  kept_.resize(std::max({size_t{1}, call.plan.stages.size(), kept_.size()}));
  for (Lists& kept : kept_) {
    kept.count.assign(blocks, 0);
    kept.capacity = 1;
    kept.start.resize(blocks * static_cast<size_t>(setup_->list_heads()));
  }
}

BlockList Pruner::list_of(const Call& call, const Lists& kept, int chunk) const {
  BlockList lists;
  lists.w0 = w0_.data();
  lists.start = kept.start.data();
  lists.count = kept.count.data();
  lists.list_heads = setup_->list_heads();
  lists.capacity = kept.capacity;
  lists.chunk = chunk;
  lists.sinks = setup_->is_sliding(call.layer) ? 0 : call.plan.sinks;
  return lists;
}

BlockList Pruner::run(const Batch& batch, int layer, const float* q, const RopeTable& rope, std::span<AttentionState* const> states) {
  const Call call{batch, layer, setup_->layer(layer), q, rope, states, batch.longest()};
  chunks_scored_ = 0;
  keys_touched_ = 0;
  place_windows(call);
  clear_kept(call);
  const auto stages = static_cast<int>(call.plan.stages.size());
  const int first = first_.empty() ? stages : *std::min_element(first_.begin(), first_.end());
  for (int stage = first; stage < stages; ++stage) run_stage(call, stage);
  if (call.plan.mode == Mode::hip) run_tree(call);
  save_selected(call);
  stage_lists_.clear();
  for (size_t i = 0; i < call.plan.stages.size(); ++i) stage_lists_.push_back(list_of(call, kept_[i], call.plan.stages[i].chunk));
  return list_of(call, kept_last(call), call.plan.last_chunk());
}

}  // namespace bough
