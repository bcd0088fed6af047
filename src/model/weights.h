// Where each weight of a model lies in its file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "bough/status.h"
#include "model/config.h"
#include "model/gguf.h"
#include "steps/tensor.h"

namespace bough {

// A matrix and what is added to its product: f32 [rows], or no data.
struct Projection {
  Tensor weight;
  Tensor bias;

  const float* bias_values() const { return static_cast<const float*>(bias.data); }
};

// Norms are f32; those that a family does without have no data.
struct LayerWeights {
  Tensor attn_norm;       // [d_model]
  Projection q;           // [heads * head_dim, d_model]
  Projection k, v;        // [kv_heads * head_dim, d_model]
  Tensor q_norm, k_norm;  // [head_dim]
  Projection o;           // [d_model, heads * head_dim]
  Tensor post_attn_norm;  // [d_model]
  Tensor ffn_norm;        // [d_model]
  Projection gate, up;    // [ffn, d_model]
  Projection down;        // [d_model, ffn]
  Tensor post_ffn_norm;   // [d_model]
};

// Points into the file's bytes: lives no longer than the GgufFile.
struct Weights {
  Tensor embedding;    // [vocab, d_model]
  Tensor output_norm;  // f32 [d_model]
  Projection output;   // [vocab, d_model]; the embedding when tied
  std::vector<LayerWeights> layers;
};

// Finds every tensor and checks its shape and type. REQUIRES: the config was read from `file`. Errors: corrupt (a tensor is missing
// or its shape differs: both shapes are named), unsupported (a type that cannot be turned into floats, a norm or a bias that is not
// f32, a tensor that the architecture here does not use: ignoring it would give wrong answers).
Result<Weights> bind_weights(const GgufFile& file, const ModelConfig& config);

// Looks at every weight, quantised ones after dequantising, for NaN and infinity. Reads the whole file; uses all threads of OpenMP.
// Errors: corrupt, naming the first such tensor and the first such row and column in it.
Status check_finite(const Weights& weights);

}  // namespace bough
