// Pruner: runs the stages or the tree of a plan over every query block of a batch and gives the BlockList.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/refresh.h"
#include "attention/state.h"
#include "bough/attention.h"
#include "steps/attention_bodies.h"

namespace bough {

// What is fixed for a model and a plan.
struct AttentionSetup {
  AttentionPlan plan;             // fitted
  std::vector<LayerPlan> layers;  // of the model's layers: what everything below reads
  KvShape kv;
  HeadShape heads;
  int64_t trained_context = 0;
  const AttentionBodies* bodies = nullptr;
  std::vector<LayerAttention> attention;  // [layers], or empty: nothing special in any layer

  AttentionSetup() = default;
  AttentionSetup(AttentionPlan fitted, const KvShape& kv_shape, const HeadShape& head_shape, int64_t trained,
                 const AttentionBodies* attention_bodies, std::vector<LayerAttention> of_model = {});

  const LayerPlan& layer(int index) const { return layers[static_cast<size_t>(index)]; }
  LayerAttention attention_of(int layer) const { return attention.empty() ? LayerAttention{} : attention[static_cast<size_t>(layer)]; }
  // Of the layer's final attention; a sliding window always counts by rank.
  PositionRule positions(int index) const {
    if (is_sliding(index)) return {};
    return {layer(index).positions, layer(index).window, trained_context};
  }
  bool is_sliding(int layer) const { return attention_of(layer).sliding_window > 0; }
  // Not asked of sliding-window layers.
  bool is_dense(int index, int64_t r1) const { return sees_everything(layer(index), plan.dense_below, r1); }
  int list_heads() const { return plan.lists == Lists::layer ? 1 : kv.kv_heads; }
  // Positions that the model's RoPE table `rope` must cover for a batch whose longest sequence has `length` tokens.
  int64_t rope_positions(int rope, int64_t length) const;

 private:
  int64_t positions_of(const LayerPlan& layer, int64_t length) const;
};

class Pruner {
 public:
  explicit Pruner(const AttentionSetup* setup) : setup_(setup) {}

  // One layer. q [t, hq, d]. states: of the batch's first sequences, of the decode rows' at least; of decode rows their saved stage
  // inputs are used and renewed, of all their summaries.
  // The result is valid until the next call. Blocks that see every token get w0 = 0 and no list, those of a sliding-window layer the
  // window's w0 and no sinks; of decode blocks only those in refreshed() have a list. Throws std::bad_alloc.
  BlockList run(const Batch& batch, int layer, const float* q, const RopeTable& rope, std::span<AttentionState* const> states);

  // [decode_rows] whether the row's context was renewed by the last run.
  const std::vector<uint8_t>& refreshed() const { return refreshed_; }
  // Candidate chunks scored by the last run, over blocks, KV heads and stages.
  int64_t chunks_scored() const { return chunks_scored_; }
  // What the chunks of each stage were narrowed to in the last run, the last entry being what it returned; none where nothing is searched
  // in stages. A stage that a decode row did not run has no list for it. Valid as long as the result of the run.
  std::span<const BlockList> stage_lists() const { return stage_lists_; }
  // Keys that the last run's searches scored, over blocks, KV heads, stages and rounds; a key scored twice counts twice.
  int64_t keys_touched() const { return keys_touched_; }

 private:
  struct Lists {
    std::vector<int32_t> start;  // [nb, lh, capacity]
    std::vector<int32_t> count;  // [nb]
    int64_t capacity = 0;
  };
  struct Call {
    const Batch& batch;
    int layer;
    const LayerPlan& plan;
    const float* q;
    const RopeTable& rope;
    std::span<AttentionState* const> states;
    int64_t longest;  // tokens of the batch's longest sequence

    LayerState& state(size_t row) const { return states[row]->layers[static_cast<size_t>(layer)]; }
  };

  void clear_kept(const Call& call);
  BlockList list_of(const Call& call, const Lists& kept, int chunk) const;
  void place_windows(const Call& call);
  void run_tree(const Call& call);
  void run_stage(const Call& call, int stage);
  void load_inputs(const Call& call, int stage);
  void summarise(const Call& call, const Candidates& candidates);
  void find_summaries(const Call& call, const std::vector<uint8_t>& active);
  static bool all_fit(const Candidates& candidates, int64_t block, int64_t limit, int64_t keep);
  // What a ScanArgs and a TreeArgs say alike.
  template <typename Args>
  Args search_args(const Call& call) const;
  void scan(const Call& call, int stage, const Candidates& candidates, int64_t capacity);
  void score(const Call& call, int stage, const Candidates& candidates);
  void save_inputs(const Call& call, int stage);
  void save_selected(const Call& call);
  Lists& kept_last(const Call& call) { return kept_[std::max<size_t>(1, call.plan.stages.size()) - 1]; }
  static int64_t capacity_of(const Call& call, int stage);
  static int64_t keep_after(const Call& call, int stage, int rows);

  const AttentionSetup* setup_;
  std::vector<int64_t> w0_;         // [nb]
  std::vector<uint8_t> renewed_;    // [nb] blocks whose context is chosen in this run
  std::vector<int32_t> first_;      // [nb] first stage that runs; the number of stages: none
  std::vector<uint8_t> refreshed_;  // [decode_rows]
  std::vector<uint8_t> active_;     // [nb] blocks that a stage scores
  std::vector<uint8_t> some_;       // [nb] those of them that are searched alike
  std::vector<float> scores_;
  std::vector<const KeySummary*> summaries_;  // [sequences]
  std::vector<int64_t> keys_read_;            // [nb] of a tree
  Lists inputs_;                              // of the stage that runs
  std::vector<Lists> kept_;                   // what each stage keeps; the first of them: of a tree, or of a layer that searches nothing
  std::vector<BlockList> stage_lists_;
  int64_t chunks_scored_ = 0;
  int64_t keys_touched_ = 0;
};

}  // namespace bough
