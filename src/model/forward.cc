#include "model/forward.h"

#include <algorithm>
#include <array>

#include "attention/decode.h"
#include "base/check.h"

namespace bough {

AttentionSetup attention_setup(const ModelConfig& config, AttentionPlan plan, DType kv) {
  const KvShape shape{kv, config.layers, config.kv_heads, config.head_dim};
  const HeadShape heads{config.heads, config.kv_heads, config.head_dim, config.attention_scale, config.attention_softcap};
  return AttentionSetup(std::move(plan), shape, heads, config.trained_context, pick_attention_bodies(kv), config.layer_attention);
}

Forward::Forward(const ModelConfig* config, const Weights* weights, AttentionSetup setup, size_t packed_budget)
    : config_(config),
      weights_(weights),
      setup_(std::move(setup)),
      bodies_(&model_bodies().front()),
      pruner_(&setup_),
      packed_(make_packed_weights(packed_budget)) {
  const auto add = [this, trained = config->trained_context](const RopeConfig& rope) {
    const int64_t positions = setup_.rope_positions(static_cast<int>(ropes_.size()), trained);
    ropes_.emplace_back(rope_params(rope, std::min(positions, trained)));
  };
  add(config->rope);
  for (const RopeConfig& rope : config->other_ropes) add(rope);
}

Status Forward::run(const Batch& batch, std::span<AttentionState* const> states, std::vector<float>& logits,
                    std::span<SourceTally* const> tallies) {
  const ModelConfig& c = *config_;
  const int64_t longest = batch.longest();
  for (size_t i = 0; i < ropes_.size(); ++i) ropes_[i].reserve(setup_.rope_positions(static_cast<int>(i), longest));
  act_.resize(c, batch.rows());
  MassWatch watch(&setup_, &batch, tallies);

  bodies_->embed({batch.ids.data(), batch.rows(), weights_->embedding, act_.x.data(), c.embedding_scale});
  for (int layer = 0; layer < c.layers; ++layer) {
    const LayerWeights& w = weights_->layers[static_cast<size_t>(layer)];
    norm(act_.x, w.attn_norm, false, act_.h);
    project(batch, w);
    BOUGH_RETURN_IF_ERROR(attention(batch, layer, states, watch));
    add_to_x(batch, act_.o, w.o, w.post_attn_norm);
    norm(act_.x, w.ffn_norm, false, act_.h);
    feed_forward(batch, w);
  }

  const auto count = static_cast<int64_t>(batch.logit_rows.size());
  logits.resize(static_cast<size_t>(count * c.vocab));
  if (count == 0) return {};
  run_logits(*bodies_, {act_.x.data(), batch.logit_rows.data(), count, batch.decode_rows,
                        static_cast<const float*>(weights_->output_norm.data), c.norm_eps, weights_->output.weight, packed_.get(),
                        act_.h.data(), logits.data(), weights_->output.bias_values(), c.logit_softcap});
  return {};
}

// kv_write, prune, attend: o from q, k, v.
Status Forward::attention(const Batch& batch, int layer, std::span<AttentionState* const> states, MassWatch& watch) {
  const AttentionBodies& bodies = *setup_.bodies;
  const LayerAttention own = setup_.attention_of(layer);
  const RopeTable& rope = ropes_[static_cast<size_t>(own.rope)];
  bodies.kv_write({&batch, setup_.kv, layer, act_.k.data(), act_.v.data()});
  const std::span<AttentionState* const> decoding = states.first(static_cast<size_t>(batch.decode_rows));
  const BlockList lists = pruner_.run(batch, layer, act_.q.data(), rope, states);
  if (observer_) observer_({setup_, batch, layer, act_.q.data(), lists, rope, pruner_.keys_touched(), pruner_.stage_lists()});
  if (batch.decode_rows > 0) {
    BOUGH_RETURN_IF_ERROR(renew_working_sets(setup_, batch, layer, lists, pruner_.refreshed(), rope, decoding));
  }
  const Mass* mass = watch.prepare(layer, lists, decoding);
  if (batch.decode_rows > 0) {
    sets_.clear();
    for (const AttentionState* state : decoding) sets_.push_back(&state->layers[static_cast<size_t>(layer)].set);
    bodies.attend_cached({&batch, setup_.kv, setup_.heads, act_.q.data(), sets_.data(), &rope, own.sliding_window, act_.o.data(), mass});
  }
  bodies.attend({&batch, batch.decode_rows, setup_.kv, setup_.heads, layer, act_.q.data(), lists, &rope, own.sliding_window,
                 setup_.positions(layer), act_.o.data(), nullptr, mass});
  watch.deliver();
  return {};
}

void Forward::project(const Batch& batch, const LayerWeights& w) {
  linear(batch, act_.h,
         {{&w.q, &act_.q}, {&w.k, &act_.k, /*add=*/false, /*precise=*/true}, {&w.v, &act_.v, /*add=*/false, /*precise=*/true}});
  norm(act_.q, w.q_norm, false, act_.q);
  norm(act_.k, w.k_norm, false, act_.k);
}

void Forward::feed_forward(const Batch& batch, const LayerWeights& w) {
  linear(batch, act_.h, {{&w.gate, &act_.gate}, {&w.up, &act_.up}});
  bodies_->activation({act_.gate.data(), act_.up.data(), batch.rows() * config_->ffn, act_.gate.data(), config_->activation});
  add_to_x(batch, act_.gate, w.down, w.post_ffn_norm);
}

void Forward::add_to_x(const Batch& batch, const std::vector<float>& from, const Projection& w, const Tensor& post_norm) {
  const bool direct = post_norm.data == nullptr;
  linear(batch, from, {{&w, direct ? &act_.x : &act_.h, direct}});
  norm(act_.h, post_norm, true, act_.x);
}

void Forward::linear(const Batch& batch, const std::vector<float>& x, std::initializer_list<Product> products) {
  const int64_t decoding = batch.decode_rows;
  std::array<LinearArgs, 3> args;
  for (const Phase phase : {Phase::decode, Phase::prefill}) {
    const int64_t first = phase == Phase::decode ? 0 : decoding, rows = phase == Phase::decode ? decoding : batch.rows() - decoding;
    if (rows == 0) continue;
    size_t count = 0;
    for (const Product& p : products) {
      const Tensor& w = p.w->weight;
      args[count++] = {x.data() + first * w.cols, rows,     w, phase, p.add, p.y->data() + first * w.rows, packed_.get(),
                       p.w->bias_values(),        p.precise};
    }
    bodies_->linear(std::span(args).first(count));
  }
}

void Forward::norm(const std::vector<float>& x, const Tensor& weight, bool add, std::vector<float>& y) {
  if (weight.data == nullptr) return;
  const int64_t rows = static_cast<int64_t>(x.size()) / weight.cols;
  bodies_->norm({x.data(), static_cast<const float*>(weight.data), rows, weight.cols, config_->norm_eps, y.data(), add});
}

void Forward::Activations::resize(const ModelConfig& c, int64_t rows) {
  const auto size = [rows](int64_t width) { return static_cast<size_t>(rows * width); };
  x.resize(size(c.d_model));
  h.resize(size(c.d_model));
  q.resize(size(c.q_width()));
  k.resize(size(c.kv_width()));
  v.resize(size(c.kv_width()));
  o.resize(size(c.q_width()));
  gate.resize(size(c.ffn));
  up.resize(size(c.ffn));
}

}  // namespace bough
