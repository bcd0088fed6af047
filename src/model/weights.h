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

struct LayerWeights {
  Tensor attn_norm;  // f32 [d_model]
  Tensor q;          // [heads * head_dim, d_model]
  Tensor k, v;       // [kv_heads * head_dim, d_model]
  Tensor o;          // [d_model, heads * head_dim]
  Tensor ffn_norm;   // f32 [d_model]
  Tensor gate, up;   // [ffn, d_model]
  Tensor down;       // [d_model, ffn]
};

// Points into the file's bytes: lives no longer than the GgufFile.
struct Weights {
  Tensor embedding;    // [vocab, d_model]
  Tensor output_norm;  // f32 [d_model]
  Tensor output;       // [vocab, d_model]; the embedding when tied
  std::vector<LayerWeights> layers;
  std::vector<float> rope_factors;  // as in RopeConfig
};

// Finds every tensor and checks its shape and type. REQUIRES: the config was read from `file`. Errors: corrupt (a tensor is missing
// or its shape differs: both shapes are named), unsupported (a type that cannot be turned into floats, a norm that is not f32, a
// tensor that the architecture here does not use, such as a bias: ignoring it would give wrong answers).
Result<Weights> bind_weights(const GgufFile& file, const ModelConfig& config);

// Looks at every weight, quantised ones after dequantising, for NaN and infinity. Reads the whole file; uses all threads of OpenMP.
// Errors: corrupt, naming the first such tensor and the first such row and column in it.
Status check_finite(const Weights& weights);

}  // namespace bough
