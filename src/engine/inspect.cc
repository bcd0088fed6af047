#include <algorithm>
#include <cstdio>
#include <set>

#include <ggml.h>

#include "base/check.h"
#include "engine/impl.h"

namespace bough {
namespace {

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}

std::string scaling_text(const RopeConfig& rope) {
  const std::string from = " from " + std::to_string(rope.original_context) + " tokens";
  switch (rope.scaling) {
    case RopeScaling::linear: return "linear by " + number_text(rope.scale);
    case RopeScaling::yarn: return "YaRN by " + number_text(rope.scale) + from;
    case RopeScaling::longrope: return "short and long factors" + from;
    case RopeScaling::none: break;
  }
  return rope.factors.empty() ? "" : "factors of the frequencies";
}

int64_t bytes_of(const Tensor& t) { return t.rows * static_cast<int64_t>(t.row_bytes); }

}  // namespace

ModelInfo describe(const GgufFile& file, const ModelConfig& c, const Weights& weights) {
  ModelInfo info;
  info.architecture = c.architecture;
  info.name = c.name;
  info.layers = c.layers;
  info.d_model = c.d_model;
  info.heads = c.heads;
  info.kv_heads = c.kv_heads;
  info.head_dim = c.head_dim;
  info.ffn = c.ffn;
  info.vocab = c.vocab;
  info.trained_context = c.trained_context;
  for (const LayerAttention& layer : c.layer_attention) {
    if (layer.sliding_window == 0) continue;
    ++info.sliding_layers;
    info.sliding_window = layer.sliding_window;
  }
  info.rope_scaling = scaling_text(c.rope);
  info.file_bytes = static_cast<int64_t>(file.file_bytes());
  std::set<std::string> types;
  for (const TensorInfo& tensor : file.tensors()) {
    int64_t count = 1;
    for (const int64_t dim : tensor.dims) count *= dim;
    info.parameters += count;
    types.insert(ggml_type_name(static_cast<ggml_type>(tensor.type)));
  }
  for (const std::string& type : types) info.weight_types += (info.weight_types.empty() ? "" : ", ") + type;
  info.weight_bytes = bytes_of(weights.output.weight);
  for (const LayerWeights& w : weights.layers) {
    for (const Projection* p : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) info.weight_bytes += bytes_of(p->weight);
  }
  if (const auto source = file.get_string("tokenizer.chat_template"); source.ok()) info.chat_template = *source;
  return info;
}

Result<ModelInfo> inspect_model(const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(const GgufFile file, open_gguf(path));
  BOUGH_ASSIGN_OR_RETURN(const ModelConfig config, read_config(file));
  BOUGH_ASSIGN_OR_RETURN(const Weights weights, bind_weights(file, config));
  return describe(file, config, weights);
}

}  // namespace bough
