#include "model/config.h"

#include <cmath>
#include <limits>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "model/config_rope.h"
#include "model/errors.h"
#include "model/family.h"
#include "model/vocabulary.h"

namespace bough {
namespace {

constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxWidth = 1u << 20;  // of d_model and of the feed-forward layer
constexpr uint64_t kMaxHeads = 1024;
constexpr uint64_t kMaxHeadDim = 256;
constexpr double kMaxSoftcap = 1e6;
constexpr uint64_t kMaxTrainedContext = 1u << 30;

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
  for (const char* name : {"attention.key_length_swa", "attention.value_length_swa"}) {
    uint64_t length = 0;
    BOUGH_RETURN_IF_ERROR(reader.read(name, 1, kMaxWidth, key_length, length));
    if (length != key_length) {
      return unsupported("the key " + in_quotes(reader.key(name)) + " is " + std::to_string(length) + ", other than the head dimension " +
                         std::to_string(key_length) + ", which is not supported");
    }
  }
  return {};
}

// Keys of other architectures' features, with the value at which they change nothing.
constexpr std::pair<const char*, double> kNeutral[] = {{"attention.scale", 0},
                                                       {"attention.clamp_kqv", 0},
                                                       {"attention.max_alibi_bias", 0},
                                                       {"logit_scale", 1},
                                                       {"residual_scale", 1},
                                                       {"embedding_scale", 1},
                                                       {"rope.scaling.alpha", 0},
                                                       {"rope.scaling.yarn_ext_factor", 1},
                                                       {"rope.scaling.yarn_attn_factor", 1},
                                                       {"rope.scaling.yarn_log_multiplier", 0}};

// Features that would change the results and that nothing here computes.
Status refuse_unsupported(const ConfigReader& reader) {
  const GgufFile& file = reader.file();
  uint64_t experts = 0, parts = 0;
  constexpr uint64_t any = std::numeric_limits<uint64_t>::max();
  BOUGH_RETURN_IF_ERROR(reader.read("expert_count", 0, any, 0, experts));
  if (experts > 0) return unsupported("the model is a mixture of " + std::to_string(experts) + " experts, which is not supported");
  if (reader.has("attention.causal")) {
    Result<bool> causal = file.get_bool(reader.key("attention.causal"));
    if (!causal.ok()) return causal.status();
    if (!*causal) return unsupported("the model's attention is not causal, which is not supported");
  }
  for (const auto& [name, neutral] : kNeutral) {
    if (!reader.has(name)) continue;
    const Result<double> value = file.get_f64(reader.key(name));
    if (!value.ok()) return corrupt(value.status().message());
    if (*value != neutral) {
      return unsupported("the key " + in_quotes(reader.key(name)) + " is " + number_text(*value) + ", only " + number_text(neutral) +
                         " is supported");
    }
  }
  BOUGH_RETURN_IF_ERROR(ConfigReader(file, "split").read("count", 0, any, 0, parts));
  if (parts > 1) return unsupported("the file is one of " + std::to_string(parts) + " parts of a split model, which must be merged first");
  return {};
}

// A window that slides where the family has none, unless it holds the whole trained context.
Status refuse_window(const ConfigReader& reader, const ModelConfig& config) {
  int64_t window = 0;
  BOUGH_RETURN_IF_ERROR(read_window(reader, 0, config.trained_context, window));
  if (window == 0) return {};
  return unsupported("the model attends through a window of " + std::to_string(window) +
                     " tokens, which is not supported for the architecture " + in_quotes(config.architecture));
}

Status read_attention(const ConfigReader& reader, ModelConfig& config) {
  BOUGH_RETURN_IF_ERROR(read_heads(reader, config));
  config.attention_scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim));
  BOUGH_RETURN_IF_ERROR(reader.read_or_zero("attn_logit_softcapping", kMaxSoftcap, config.attention_softcap));
  return reader.read_or_zero("final_logit_softcapping", kMaxSoftcap, config.logit_softcap);
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
  const Family* family = find_family(*architecture);
  if (family == nullptr)
    return unsupported("the architecture " + in_quotes(*architecture) + " is not supported, " + family_names() + " are");

  ModelConfig config;
  config.architecture = *architecture;
  if (Result<std::string_view> name = file.get_string("general.name"); name.ok()) config.name = *name;
  const ConfigReader reader(file, config.architecture);
  BOUGH_RETURN_IF_ERROR(refuse_unsupported(reader));
  BOUGH_RETURN_IF_ERROR(read_widths(reader, config));
  BOUGH_RETURN_IF_ERROR(read_attention(reader, config));
  if (!family->sliding_window) BOUGH_RETURN_IF_ERROR(refuse_window(reader, config));
  BOUGH_RETURN_IF_ERROR(read_rope(reader, *family, config));
  BOUGH_RETURN_IF_ERROR(family->read(reader, config));
  BOUGH_RETURN_IF_ERROR(read_vocabulary(file, reader, config));
  config.tied_output = file.find_tensor("output.weight") == nullptr;
  return config;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory to check the model's vocabulary");
}

}  // namespace bough
