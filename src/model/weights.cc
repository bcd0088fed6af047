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

namespace bough {
namespace {

enum class Kind : uint8_t { matrix, norm };

Status corrupt(std::string message) { return Status(Code::corrupt, std::move(message)); }
Status unsupported(std::string message) { return Status(Code::unsupported, std::move(message)); }

const char* type_name(int type) { return ggml_type_name(static_cast<ggml_type>(type)); }

bool has_float_values(int type) { return type == GGML_TYPE_F32 || ggml_get_type_traits(static_cast<ggml_type>(type))->to_float != nullptr; }

class Binder {
 public:
  explicit Binder(const GgufFile& file) : file_(file) {}

  // REQUIRES: rows is 1 for a norm.
  Status bind(const std::string& name, Kind kind, int64_t rows, int64_t cols, Tensor& out) {
    const TensorInfo* tensor = file_.find_tensor(name);
    if (tensor == nullptr) return corrupt("the tensor " + in_quotes(name) + " is missing");
    const int n_dims = kind == Kind::norm ? 1 : 2;
    if (tensor->n_dims != n_dims || tensor->dims[0] != cols || tensor->dims[1] != rows) {
      const std::string expected = kind == Kind::norm ? std::to_string(cols) : std::to_string(cols) + ", " + std::to_string(rows);
      return corrupt("the tensor " + in_quotes(name) + " has the shape " + shape_text(*tensor) + ", it must be [" + expected + "]");
    }
    if (kind == Kind::norm && tensor->type != GGML_TYPE_F32) {
      return unsupported("the tensor " + in_quotes(name) + " is " + type_name(tensor->type) + ", only f32 is supported for norms");
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

Status bind_layer(Binder& binder, const ModelConfig& config, int index, LayerWeights& layer) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const int64_t d = config.d_model, q = config.q_width(), kv = config.kv_width(), ffn = config.ffn;
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "attn_norm.weight", Kind::norm, 1, d, layer.attn_norm));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "attn_q.weight", Kind::matrix, q, d, layer.q));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "attn_k.weight", Kind::matrix, kv, d, layer.k));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "attn_v.weight", Kind::matrix, kv, d, layer.v));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "attn_output.weight", Kind::matrix, d, q, layer.o));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "ffn_norm.weight", Kind::norm, 1, d, layer.ffn_norm));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "ffn_gate.weight", Kind::matrix, ffn, d, layer.gate));
  BOUGH_RETURN_IF_ERROR(binder.bind(prefix + "ffn_up.weight", Kind::matrix, ffn, d, layer.up));
  return binder.bind(prefix + "ffn_down.weight", Kind::matrix, d, ffn, layer.down);
}

// The index of the first of `n` floats whose exponent is all ones, or n.
int64_t first_not_finite(const float* values, int64_t n) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
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
  const int64_t place = first_not_finite(tensor);
  if (place == tensor.rows * tensor.cols) return {};
  return corrupt("the tensor " + in_quotes(tensor.name) + " holds a value that is not finite, at row " +
                 std::to_string(place / tensor.cols) + " and column " + std::to_string(place % tensor.cols));
}

}  // namespace

Result<Weights> bind_weights(const GgufFile& file, const ModelConfig& config) try {
  Binder binder(file);
  Weights weights;
  BOUGH_RETURN_IF_ERROR(binder.bind("token_embd.weight", Kind::matrix, config.vocab, config.d_model, weights.embedding));
  BOUGH_RETURN_IF_ERROR(binder.bind("output_norm.weight", Kind::norm, 1, config.d_model, weights.output_norm));
  if (config.tied_output) {
    weights.output = weights.embedding;
  } else {
    BOUGH_RETURN_IF_ERROR(binder.bind("output.weight", Kind::matrix, config.vocab, config.d_model, weights.output));
  }
  weights.layers.resize(static_cast<size_t>(config.layers));
  for (int i = 0; i < config.layers; ++i) BOUGH_RETURN_IF_ERROR(bind_layer(binder, config, i, weights.layers[static_cast<size_t>(i)]));
  weights.rope_factors = config.rope.factors;
  binder.use("rope_freqs.weight");
  BOUGH_RETURN_IF_ERROR(binder.check_all_used(config));
  return weights;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory for the list of weights");
}

Status check_finite(const Weights& weights) try {
  BOUGH_RETURN_IF_ERROR(check_finite(weights.embedding));
  BOUGH_RETURN_IF_ERROR(check_finite(weights.output_norm));
  if (weights.output.data != weights.embedding.data) BOUGH_RETURN_IF_ERROR(check_finite(weights.output));
  for (const LayerWeights& layer : weights.layers) {
    for (const Tensor* tensor :
         {&layer.attn_norm, &layer.q, &layer.k, &layer.v, &layer.o, &layer.ffn_norm, &layer.gate, &layer.up, &layer.down}) {
      BOUGH_RETURN_IF_ERROR(check_finite(*tensor));
    }
  }
  return {};
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory to check the weights");
}

}  // namespace bough
