// Forward: the layer loop. One call is one engine step over a ragged batch.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "attention/observer.h"
#include "attention/watch.h"
#include "model/config.h"
#include "model/weights.h"
#include "steps/model_bodies.h"

namespace bough {

// The attention of a model under a fitted plan, by the fastest bodies for the KV type.
AttentionSetup attention_setup(const ModelConfig& config, AttentionPlan plan, DType kv);

class Forward {
 public:
  // config and weights must outlive this object. packed_budget: bytes of weights that may be kept in the form
  // that prefill multiplies, and as many for decode's.
  Forward(const ModelConfig* config, const Weights* weights, AttentionSetup setup, size_t packed_budget);

  // Reads the batch's rows into the pages and leaves [logit_rows, vocab] in `logits`. states: of the batch's sequences, the
  // decode rows' first. Throws std::bad_alloc. Errors: out_of_memory.
  // tallies: by sequence of the batch, null where no row is watched, or none at all.
  Status run(const Batch& batch, std::span<AttentionState* const> states, std::vector<float>& logits,
             std::span<SourceTally* const> tallies = {});

  // Called once a layer from now on; empty: no more.
  void observe(LayerObserver observer) { observer_ = std::move(observer); }

  const AttentionSetup& setup() const { return setup_; }

 private:
  struct Activations {
    std::vector<float> x, h, q, k, v, o, gate, up;
    void resize(const ModelConfig& config, int64_t rows);
  };
  Status attention(const Batch& batch, int layer, std::span<AttentionState* const> states, MassWatch& watch);
  void feed_forward(const Batch& batch, const LayerWeights& w);
  // q, k and v of the normed rows.
  void project(const Batch& batch, const LayerWeights& w);
  // x += [post_norm] (from W^T + bias).
  void add_to_x(const Batch& batch, const std::vector<float>& from, const Projection& w, const Tensor& post_norm);
  // y (+)= x W^T + bias of each product, for decode rows and prefill rows in their own phase.
  struct Product {
    const Projection* w;
    std::vector<float>* y;
    bool add = false;
    bool precise = false;
  };
  void linear(const Batch& batch, const std::vector<float>& x, std::initializer_list<Product> products);
  // Rows of the weight's width; does nothing when there is no weight.
  void norm(const std::vector<float>& x, const Tensor& weight, bool add, std::vector<float>& y);

  const ModelConfig* config_;
  const Weights* weights_;
  AttentionSetup setup_;
  const ModelBodies* bodies_;
  std::vector<RopeTable> ropes_;  // by LayerAttention::rope
  Pruner pruner_;
  PackedWeightsPtr packed_;
  Activations act_;
  std::vector<const WorkingSet*> sets_;  // [decode_rows] of the layer that runs
  LayerObserver observer_;
};

}  // namespace bough
