#include "model/config.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <string_view>

#include "base/check.h"
#include "ggml.h"
#include "model/vocabulary.h"

namespace bough {
namespace {

constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxWidth = 1u << 20;  // of d_model and of the feed-forward layer
constexpr uint64_t kMaxHeads = 1024;
constexpr uint64_t kMaxHeadDim = 256;
constexpr uint64_t kMaxTrainedContext = 1u << 30;
constexpr double kMaxRopeScale = 1e6;
constexpr double kMaxRopeFactor = 1e6;

Status corrupt(std::string message) { return Status(Code::corrupt, std::move(message)); }
Status unsupported(std::string message) { return Status(Code::unsupported, std::move(message)); }

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

// Reads the keys of one architecture. Errors name the whole key.
class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string key(std::string_view name) const { return prefix_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.find(key(name)) != nullptr; }

  // An integer from `least` to `most`; a missing key gives `fallback`, or is an error when there is none.
  Status read(std::string_view name, uint64_t least, uint64_t most, std::optional<uint64_t> fallback, uint64_t& value) const {
    if (!has(name) && fallback) {
      value = *fallback;
      return {};
    }
    Result<uint64_t> found = file_.get_u64(key(name));
    if (!found.ok()) return corrupt(found.status().message());
    value = *found;
    if (value >= least && value <= most) return {};
    return corrupt("the key " + in_quotes(key(name)) + " is " + std::to_string(value) + ", it must be from " + std::to_string(least) +
                   " to " + std::to_string(most));
  }

  Status read(std::string_view name, uint64_t most, int& value) const {
    uint64_t wide = 0;
    BOUGH_RETURN_IF_ERROR(read(name, 1, most, std::nullopt, wide));
    value = static_cast<int>(wide);
    return {};
  }

  // A finite number above 0 and at most `most`.
  Status read_positive(std::string_view name, double most, std::optional<double> fallback, double& value) const {
    if (!has(name) && fallback) {
      value = *fallback;
      return {};
    }
    Result<double> found = file_.get_f64(key(name));
    if (!found.ok()) return corrupt(found.status().message());
    value = *found;
    if (std::isfinite(value) && value > 0 && value <= most) return {};
    return corrupt("the key " + in_quotes(key(name)) + " is " + number_text(value) + ", it must be above 0 and at most " +
                   number_text(most));
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

Status read_widths(const ConfigReader& reader, ModelConfig& config) {
  BOUGH_RETURN_IF_ERROR(reader.read("block_count", kMaxLayers, config.layers));
  BOUGH_RETURN_IF_ERROR(reader.read("embedding_length", kMaxWidth, config.d_model));
  BOUGH_RETURN_IF_ERROR(reader.read("feed_forward_length", kMaxWidth, config.ffn));
  uint64_t context = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("context_length", 1, kMaxTrainedContext, std::nullopt, context));
  config.trained_context = static_cast<int64_t>(context);
  double eps = 0;
  BOUGH_RETURN_IF_ERROR(reader.read_positive("attention.layer_norm_rms_epsilon", 1.0, std::nullopt, eps));
  config.norm_eps = static_cast<float>(eps);
  if (config.norm_eps == 0) {
    return corrupt("the key " + in_quotes(reader.key("attention.layer_norm_rms_epsilon")) + " is " + number_text(eps) +
                   ", which is 0 in 32 bits");
  }
  return {};
}

Status read_heads(const ConfigReader& reader, ModelConfig& config) {
  BOUGH_RETURN_IF_ERROR(reader.read("attention.head_count", kMaxHeads, config.heads));
  uint64_t value = 0;
  const auto heads = static_cast<uint64_t>(config.heads);
  BOUGH_RETURN_IF_ERROR(reader.read("attention.head_count_kv", 1, heads, heads, value));
  config.kv_heads = static_cast<int>(value);
  if (config.heads % config.kv_heads != 0) {
    return corrupt("the model has " + std::to_string(config.heads) + " heads, which is no multiple of its " +
                   std::to_string(config.kv_heads) + " KV heads");
  }
  if (!reader.has("attention.key_length") && config.d_model % config.heads != 0) {
    return corrupt("the model's width " + std::to_string(config.d_model) + " is no multiple of its " + std::to_string(config.heads) +
                   " heads");
  }
  const auto even_split = static_cast<uint64_t>(config.d_model / config.heads);
  uint64_t key_length = 0, value_length = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("attention.key_length", 1, kMaxWidth, even_split, key_length));
  BOUGH_RETURN_IF_ERROR(reader.read("attention.value_length", 1, kMaxWidth, even_split, value_length));
  if (key_length != value_length) {
    return unsupported("the key length " + std::to_string(key_length) + " and the value length " + std::to_string(value_length) +
                       " differ, which is not supported");
  }
  if (key_length == 0 || key_length > kMaxHeadDim || key_length % 2 != 0) {
    return unsupported("the head dimension is " + std::to_string(key_length) + ", it must be even and from 2 to " +
                       std::to_string(kMaxHeadDim));
  }
  config.head_dim = static_cast<int>(key_length);
  return {};
}

Status read_rope_scaling(const GgufFile& file, const ConfigReader& reader, RopeConfig& rope) {
  std::string_view type = "linear";
  if (reader.has("rope.scaling.type")) {
    Result<std::string_view> found = file.get_string(reader.key("rope.scaling.type"));
    if (!found.ok()) return found.status();
    type = *found;
  }
  if (type == "none") return {};
  if (type != "linear") return unsupported("the position scaling " + in_quotes(type) + " is not supported, 'none' and 'linear' are");
  double factor = 1.0, attention = 1.0;
  // Old files name the factor scale_linear; 0 means no scaling there.
  for (const char* name : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (!reader.has(name)) continue;
    const Result<double> found = file.get_f64(reader.key(name));
    if (found.ok() && *found == 0) continue;
    BOUGH_RETURN_IF_ERROR(reader.read_positive(name, kMaxRopeScale, std::nullopt, factor));
  }
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.scaling.attn_factor", kMaxRopeScale, 1.0, attention));
  if (attention != 1.0)
    return unsupported("the attention factor " + number_text(attention) + " of the position scaling is not supported, 1 is");
  rope.scale = factor;
  return {};
}

Status read_rope_factors(const GgufFile& file, RopeConfig& rope) {
  const TensorInfo* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  const int pairs = rope.dims / 2;
  if (tensor->type != GGML_TYPE_F32 || tensor->n_dims != 1 || tensor->dims[0] != pairs) {
    return corrupt("the tensor 'rope_freqs.weight' is " + std::string(ggml_type_name(static_cast<ggml_type>(tensor->type))) + " of shape " +
                   shape_text(*tensor) + ", it must be f32 of shape [" + std::to_string(pairs) + "]");
  }
  rope.factors.resize(static_cast<size_t>(pairs));
  std::memcpy(rope.factors.data(), file.data(*tensor).data(), rope.factors.size() * sizeof(float));
  for (size_t i = 0; i < rope.factors.size(); ++i) {
    const float factor = rope.factors[i];
    if (!(factor > 0) || factor > kMaxRopeFactor) {
      return corrupt("value " + std::to_string(i) + " of the tensor 'rope_freqs.weight' is " + number_text(factor) +
                     ", it must be above 0 and at most " + number_text(kMaxRopeFactor));
    }
  }
  return {};
}

// The llama family stores its q and k permuted so that pairs are interleaved.
Status read_rope(const GgufFile& file, const ConfigReader& reader, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.layout = RopeLayout::interleaved;
  uint64_t dims = 0;
  const auto head_dim = static_cast<uint64_t>(config.head_dim);
  BOUGH_RETURN_IF_ERROR(reader.read("rope.dimension_count", 1, kMaxWidth, head_dim, dims));
  if (dims != head_dim) {
    return unsupported("the model rotates " + std::to_string(dims) + " of the " + std::to_string(head_dim) +
                       " elements of a head, only rotating all of them is supported");
  }
  rope.dims = config.head_dim;
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.freq_base", std::numeric_limits<float>::max(), 10000.0, rope.base));
  BOUGH_RETURN_IF_ERROR(read_rope_scaling(file, reader, rope));
  return read_rope_factors(file, rope);
}

// Features that would change the results and that nothing here computes.
Status refuse_unsupported(const GgufFile& file, const ConfigReader& reader) {
  uint64_t experts = 0, parts = 0;
  constexpr uint64_t any = std::numeric_limits<uint64_t>::max();
  BOUGH_RETURN_IF_ERROR(reader.read("expert_count", 0, any, 0, experts));
  if (experts > 0) return unsupported("the model is a mixture of " + std::to_string(experts) + " experts, which is not supported");
  if (reader.has("attention.causal")) {
    Result<bool> causal = file.get_bool(reader.key("attention.causal"));
    if (!causal.ok()) return causal.status();
    if (!*causal) return unsupported("the model's attention is not causal, which is not supported");
  }
  uint64_t window = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("attention.sliding_window", 0, any, 0, window));
  if (window > 0) return unsupported("the model attends through a window of " + std::to_string(window) + " tokens, which is not supported");
  BOUGH_RETURN_IF_ERROR(ConfigReader(file, "split").read("count", 0, any, 0, parts));
  if (parts > 1) return unsupported("the file is one of " + std::to_string(parts) + " parts of a split model, which must be merged first");
  return {};
}

Status read_vocabulary(const GgufFile& file, const ConfigReader& reader, ModelConfig& config) {
  Result<int64_t> tokens = check_vocabulary(file);
  if (!tokens.ok())
    return Status(tokens.status().code() == Code::unsupported ? Code::unsupported : Code::corrupt, tokens.status().message());
  config.vocab = *tokens;
  const auto count = static_cast<uint64_t>(config.vocab);
  uint64_t claimed = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("vocab_size", 1, std::numeric_limits<uint64_t>::max(), count, claimed));
  if (claimed != count) {
    return corrupt("the key " + in_quotes(reader.key("vocab_size")) + " is " + std::to_string(claimed) + ", the vocabulary has " +
                   std::to_string(count) + " tokens");
  }
  const TensorInfo* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) return corrupt("the tensor 'token_embd.weight' is missing");
  if (embedding->n_dims != 2 || embedding->dims[1] != config.vocab) {
    return corrupt("the tensor 'token_embd.weight' has the shape " + shape_text(*embedding) + ", it must have a row for each of the " +
                   std::to_string(count) + " tokens");
  }
  return {};
}

}  // namespace

Result<ModelConfig> read_config(const GgufFile& file) try {
  Result<std::string_view> architecture = file.get_string("general.architecture");
  if (!architecture.ok()) return corrupt(architecture.status().message());
  if (*architecture != "llama") return unsupported("the architecture " + in_quotes(*architecture) + " is not supported, 'llama' is");

  ModelConfig config;
  config.architecture = *architecture;
  if (Result<std::string_view> name = file.get_string("general.name"); name.ok()) config.name = *name;
  const ConfigReader reader(file, config.architecture);
  BOUGH_RETURN_IF_ERROR(refuse_unsupported(file, reader));
  BOUGH_RETURN_IF_ERROR(read_widths(reader, config));
  BOUGH_RETURN_IF_ERROR(read_heads(reader, config));
  BOUGH_RETURN_IF_ERROR(read_rope(file, reader, config));
  BOUGH_RETURN_IF_ERROR(read_vocabulary(file, reader, config));
  config.tied_output = file.find_tensor("output.weight") == nullptr;
  return config;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory to check the model's vocabulary");
}

RopeParams rope_params(const RopeConfig& rope) {
  RopeParams params;
  params.layout = rope.layout;
  params.dims = rope.dims;
  params.frequencies.resize(static_cast<size_t>(rope.dims / 2));
  for (size_t i = 0; i < params.frequencies.size(); ++i) {
    const double factor = rope.factors.empty() ? 1.0 : static_cast<double>(rope.factors[i]);
    params.frequencies[i] = std::pow(rope.base, -2.0 * static_cast<double>(i) / rope.dims) / rope.scale / factor;
  }
  return params;
}

}  // namespace bough
