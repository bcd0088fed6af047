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

// Rotary positions. Pair i of `dims` / 2 turns by  position / scale * base^(-2i / dims) / factors[i]  radians.
struct RopeConfig {
  RopeLayout layout = RopeLayout::interleaved;
  int dims = 0;  // rotated elements of a head
  double base = 10000.0;
  double scale = 1.0;          // linear scaling's factor, 1 when there is none
  double magnitude = 1.0;      // of what turns (YaRN's attention factor)
  std::vector<float> factors;  // one a pair (Llama 3's rope_freqs); empty means all 1
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
  RopeConfig rope;
  std::vector<RopeConfig> other_ropes;          // LayerAttention::rope 1, 2, ...; 0 is `rope`
  std::vector<LayerAttention> layer_attention;  // [layers], or empty: every layer sees all keys and turns by `rope`
  float attention_softcap = 0;                  // HeadShape::softcap
  bool tied_output = false;                     // the output projection is the embedding

  int group() const { return heads / kv_heads; }
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
};

// Reads and checks every number; refuses what would be computed wrongly rather than ignoring it. The vocabulary is checked as far as
// the tokenizer library relies on it (check_vocabulary). Errors: unsupported (architecture, experts, position scaling, key and
// value lengths that differ), corrupt (a value outside its limits, a missing key); each names the value and the limit.
Result<ModelConfig> read_config(const GgufFile& file);

// The frequencies in radians a position, scaling applied.
RopeParams rope_params(const RopeConfig& rope);

}  // namespace bough
