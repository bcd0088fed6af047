#include "model/weights.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "ggml.h"
#include "model/errors.h"
#include "model/family.h"

namespace bough {
namespace {

enum class Kind : uint8_t { matrix, vector };

const char* type_name(int type) { return ggml_type_name(static_cast<ggml_type>(type)); }

bool has_float_values(int type) { return type == GGML_TYPE_F32 || ggml_get_type_traits(static_cast<ggml_type>(type))->to_float != nullptr; }

class Binder {
 public:
  explicit Binder(const GgufFile& file) : file_(file) {}

  // REQUIRES: rows is 1 for a vector.
  Status bind(const std::string& name, Kind kind, int64_t rows, int64_t cols, Tensor& out) {
    const TensorInfo* tensor = file_.find_tensor(name);
    if (tensor == nullptr) return corrupt("the tensor " + in_quotes(name) + " is missing");
    const int n_dims = kind == Kind::vector ? 1 : 2;
    if (tensor->n_dims != n_dims || tensor->dims[0] != cols || tensor->dims[1] != rows) {
      const std::string expected = kind == Kind::vector ? std::to_string(cols) : std::to_string(cols) + ", " + std::to_string(rows);
      return corrupt("the tensor " + in_quotes(name) + " has the shape " + shape_text(*tensor) + ", it must be [" + expected + "]");
    }
    if (kind == Kind::vector && tensor->type != GGML_TYPE_F32) {
      return unsupported("the tensor " + in_quotes(name) + " is " + type_name(tensor->type) + ", only f32 is supported for vectors");
    }
    if (!has_float_values(tensor->type)) {
      return unsupported("the tensor " + in_quotes(name) + " is " + type_name(tensor->type) + ", which cannot be turned into floats");
    }
    out = {file_.data(*tensor).data(),
           tensor->type,
           rows,
           cols,
           static_cast<size_t>(tensor->bytes / static_cast<uint64_t>(rows)),
           tensor->name};
    used_.insert(tensor->name);
    return {};
  }

  Status vector(const std::string& name, int64_t cols, Tensor& out) { return bind(name, Kind::vector, 1, cols, out); }

  // NAME.weight, and NAME.bias where `may_have_bias` and the file has it.
  Status projection(const std::string& name, bool may_have_bias, int64_t rows, int64_t cols, Projection& out) {
    BOUGH_RETURN_IF_ERROR(bind(name + ".weight", Kind::matrix, rows, cols, out.weight));
    return may_have_bias && has(name + ".bias") ? vector(name + ".bias", rows, out.bias) : Status();
  }

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  void use(std::string_view name) {
    if (file_.find_tensor(name) != nullptr) used_.insert(file_.find_tensor(name)->name);
  }

  Status check_all_used(const ModelConfig& config) const {
    if (used_.size() == file_.tensors().size()) return {};
    for (const TensorInfo& tensor : file_.tensors()) {
      if (!used_.contains(tensor.name)) {
        return unsupported("the tensor " + in_quotes(tensor.name) + " is not used for the architecture " + in_quotes(config.architecture) +
                           " with " + std::to_string(config.layers) + " layers, leaving it out would change the results");
      }
    }
    return {};
  }

 private:
  const GgufFile& file_;
  std::unordered_set<std::string_view> used_;
};

// Rows [from, from + count) of a matrix, or values of a vector.
Tensor part(const Tensor& whole, int64_t from, int64_t count) {
  if (whole.data == nullptr) return {};
  Tensor view = whole;
  const bool is_vector = whole.rows == 1;
  (is_vector ? view.cols : view.rows) = count;
  if (is_vector) view.row_bytes = static_cast<size_t>(count) * sizeof(float);
  view.data = static_cast<const std::byte*>(whole.data) + static_cast<size_t>(from) * (is_vector ? sizeof(float) : whole.row_bytes);
  return view;
}

Projection part(const Projection& whole, int64_t from, int64_t count) {
  return {part(whole.weight, from, count), part(whole.bias, from, count)};
}

// Three tensors, or one that holds the rows of all three.
Status bind_qkv(Binder& binder, const ModelConfig& config, const std::string& prefix, LayerWeights& layer) {
  const int64_t d = config.d_model, q = config.q_width(), kv = config.kv_width();
  if (!binder.has(prefix + "attn_qkv.weight")) {
    BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "attn_q", true, q, d, layer.q));
    BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "attn_k", true, kv, d, layer.k));
    return binder.projection(prefix + "attn_v", true, kv, d, layer.v);
  }
  Projection fused;
  BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "attn_qkv", true, q + 2 * kv, d, fused));
  layer.q = part(fused, 0, q);
  layer.k = part(fused, q, kv);
  layer.v = part(fused, q + kv, kv);
  return {};
}

Status bind_feed_forward(Binder& binder, const ModelConfig& config, const FamilyTensors& has, const std::string& prefix,
                         LayerWeights& layer) {
  const int64_t d = config.d_model, ffn = config.ffn;
  BOUGH_RETURN_IF_ERROR(binder.vector(prefix + "ffn_norm.weight", d, layer.ffn_norm));
  if (has.fused_gate_up) {
    Projection fused;
    BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "ffn_up", has.layer_biases, 2 * ffn, d, fused));
    layer.gate = part(fused, 0, ffn);
    layer.up = part(fused, ffn, ffn);
  } else {
    BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "ffn_gate", has.layer_biases, ffn, d, layer.gate));
    BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "ffn_up", has.layer_biases, ffn, d, layer.up));
  }
  BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "ffn_down", has.layer_biases, d, ffn, layer.down));
  return has.post_norms ? binder.vector(prefix + "post_ffw_norm.weight", d, layer.post_ffn_norm) : Status();
}

Status bind_layer(Binder& binder, const ModelConfig& config, const FamilyTensors& has, int index, LayerWeights& layer) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  BOUGH_RETURN_IF_ERROR(binder.vector(prefix + "attn_norm.weight", config.d_model, layer.attn_norm));
  BOUGH_RETURN_IF_ERROR(bind_qkv(binder, config, prefix, layer));
  if (has.head_norms) {
    BOUGH_RETURN_IF_ERROR(binder.vector(prefix + "attn_q_norm.weight", config.head_dim, layer.q_norm));
    BOUGH_RETURN_IF_ERROR(binder.vector(prefix + "attn_k_norm.weight", config.head_dim, layer.k_norm));
  }
  BOUGH_RETURN_IF_ERROR(binder.projection(prefix + "attn_output", has.layer_biases, config.d_model, config.q_width(), layer.o));
  if (has.post_norms) {
    BOUGH_RETURN_IF_ERROR(binder.vector(prefix + "post_attention_norm.weight", config.d_model, layer.post_attn_norm));
  }
  return bind_feed_forward(binder, config, has, prefix, layer);
}

// The index of the first of `n` floats whose exponent is all ones, or n.
int64_t first_not_finite(const float* values, int64_t n) {
  constexpr uint32_t exponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    found |= static_cast<uint32_t>((bits & exponent) == exponent);
  }
  if (found == 0) return n;
  return std::find_if(values, values + n, [](float value) { return !(value - value == 0); }) - values;
}

constexpr int64_t kParallelValues = 1 << 16;  // below it waking the other threads costs more than the scan

// The place of the first value that is not finite, row * cols + column, or rows * cols.
int64_t first_not_finite(const Tensor& tensor) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(tensor.type))->to_float;
  const auto* bytes = static_cast<const char*>(tensor.data);
  const int64_t all = tensor.rows * tensor.cols;
  const bool converts = tensor.type != GGML_TYPE_F32;
  const auto threads = static_cast<size_t>(omp_get_max_threads());
  std::vector<float> scratch(converts ? threads * static_cast<size_t>(tensor.cols) : 0);  // a row a thread
  std::atomic<int64_t> first{all};
#pragma omp parallel for schedule(static) num_threads(static_cast <int>(threads))
  for (int64_t row = 0; row < tensor.rows; ++row) {
    if (first.load(std::memory_order_relaxed) < row * tensor.cols) continue;
    const char* at = bytes + static_cast<size_t>(row) * tensor.row_bytes;
    const float* values = reinterpret_cast<const float*>(at);
    if (converts) {
      float* converted = scratch.data() + omp_get_thread_num() * tensor.cols;
      to_float(at, converted, tensor.cols);
      values = converted;
    }
    const int64_t column = first_not_finite(values, tensor.cols);
    if (column == tensor.cols) continue;
    const int64_t place = row * tensor.cols + column;
    int64_t before = first.load();
    while (place < before && !first.compare_exchange_weak(before, place)) {
    }
  }
  return first.load();
}

Status check_finite(const Tensor& tensor) {
  if (tensor.data == nullptr) return {};
  const int64_t place = first_not_finite(tensor);
  if (place == tensor.rows * tensor.cols) return {};
  return corrupt("the tensor " + in_quotes(tensor.name) + " holds a value that is not finite, at row " +
                 std::to_string(place / tensor.cols) + " and column " + std::to_string(place % tensor.cols));
}

}  // namespace

Result<Weights> bind_weights(const GgufFile& file, const ModelConfig& config) try {
  Binder binder(file);
  Weights weights;
  const FamilyTensors& has = find_family(config.architecture)->tensors;
  BOUGH_RETURN_IF_ERROR(binder.bind("token_embd.weight", Kind::matrix, config.vocab, config.d_model, weights.embedding));
  BOUGH_RETURN_IF_ERROR(binder.vector("output_norm.weight", config.d_model, weights.output_norm));
  if (config.tied_output) {
    weights.output.weight = weights.embedding;
  } else {
    BOUGH_RETURN_IF_ERROR(binder.bind("output.weight", Kind::matrix, config.vocab, config.d_model, weights.output.weight));
  }
  if (has.output_bias && binder.has("output.bias")) {
    BOUGH_RETURN_IF_ERROR(binder.vector("output.bias", config.vocab, weights.output.bias));
  }
  weights.layers.resize(static_cast<size_t>(config.layers));
  for (int i = 0; i < config.layers; ++i) {
    BOUGH_RETURN_IF_ERROR(bind_layer(binder, config, has, i, weights.layers[static_cast<size_t>(i)]));
  }
  if (has.rope_freqs) binder.use(kRopeFreqs);
  if (!config.rope.long_factors.empty()) {
    binder.use(kShortFactors);
    binder.use(kLongFactors);
  }
  BOUGH_RETURN_IF_ERROR(binder.check_all_used(config));
  return weights;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory for the list of weights");
}

Status check_finite(const Weights& weights) try {
  BOUGH_RETURN_IF_ERROR(check_finite(weights.embedding));
  BOUGH_RETURN_IF_ERROR(check_finite(weights.output_norm));
  if (weights.output.weight.data != weights.embedding.data) BOUGH_RETURN_IF_ERROR(check_finite(weights.output.weight));
  BOUGH_RETURN_IF_ERROR(check_finite(weights.output.bias));
  for (const LayerWeights& w : weights.layers) {
    for (const Tensor* norm : {&w.attn_norm, &w.q_norm, &w.k_norm, &w.post_attn_norm, &w.ffn_norm, &w.post_ffn_norm}) {
      BOUGH_RETURN_IF_ERROR(check_finite(*norm));
    }
    for (const Projection* projection : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) {
      BOUGH_RETURN_IF_ERROR(check_finite(projection->weight));
      BOUGH_RETURN_IF_ERROR(check_finite(projection->bias));
    }
  }
  return {};
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory to check the weights");
}

}  // namespace bough
