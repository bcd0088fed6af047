// What a model is: its shape and its positions, read from a checked GGUF file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bough/status.h"
#include "model/gguf.h"
#include "steps/activation.h"
#include "steps/rope.h"
#include "steps/shape.h"

namespace bough {

enum class RopeScaling : uint8_t { none, linear, yarn, longrope };

// Rotary positions. Pair i of `dims` / 2 turns by  position * base^(-2i / dims) / factors[i]  radians, over `scale` where that is linear.
// YaRN divides by `scale` what turns slowly, leaves what turns quickly and mixes between: pairs that make from beta_slow to beta_fast
// turns within the original context.
struct RopeConfig {
  RopeLayout layout = RopeLayout::interleaved;
  int dims = 0;  // rotated elements of a head, the first of them
  double base = 10000.0;
  RopeScaling scaling = RopeScaling::none;
  double scale = 1.0;            // 1 when there is none
  double magnitude = 1.0;        // of what turns (YaRN's attention factor)
  int64_t original_context = 0;  // tokens before scaling
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::vector<float> factors;       // one a pair (Llama 3's rope_freqs, longrope's short ones); empty means all 1
  std::vector<float> long_factors;  // longrope's for positions from original_context on
};

struct ModelConfig {
  std::string architecture;  // of one of families()
  std::string name;          // may be empty
  int layers = 0;
  int d_model = 0;
  int heads = 0;  // query heads, a multiple of kv_heads
  int kv_heads = 0;
  int head_dim = 0;  // even, of keys and of values
  int ffn = 0;       // width of the gated feed-forward layer
  int64_t vocab = 0;
  int64_t trained_context = 0;  // tokens
  float norm_eps = 0;           // of the RMS norms
  float embedding_scale = 1;    // of the rows of the embedding
  float logit_softcap = 0;      // 0: none
  Activation activation = Activation::silu;
  float attention_scale = 0;    // of q.k before the softmax
  float attention_softcap = 0;  // of the scaled scores; 0: none
  RopeConfig rope;
  std::vector<RopeConfig> other_ropes;          // LayerAttention::rope 1, 2, ...; 0 is `rope`
  std::vector<LayerAttention> layer_attention;  // [layers], or empty: every layer sees all keys and turns by `rope`
  bool tied_output = false;                     // the output projection is the embedding

  int group() const { return heads / kv_heads; }
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
};

// Reads and checks every number; refuses what would be computed wrongly rather than ignoring it. The vocabulary is checked as far as
// the tokenizer library relies on it (check_vocabulary). Errors: unsupported (architecture, experts, position scaling, key and
// value lengths that differ), corrupt (a value outside its limits, a missing key); each names the value and the limit.
Result<ModelConfig> read_config(const GgufFile& file);

// The frequencies in radians a position, scaling applied, for positions below `positions`.
RopeParams rope_params(const RopeConfig& rope, int64_t positions);

}  // namespace bough
