#include "model/family.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "model/errors.h"
#include "model/gguf_values.h"

namespace bough {
namespace {

constexpr uint64_t kMaxPeriod = 512;

}  // namespace

std::span<const Family> families() {
  static const std::array all = {llama_family(), qwen2_family(), qwen3_family(), gemma2_family(), gemma3_family(), phi3_family()};
  return all;
}

const Family* find_family(std::string_view architecture) {
  const auto found = std::find_if(families().begin(), families().end(), [&](const Family& f) { return f.architecture == architecture; });
  return found == families().end() ? nullptr : &*found;
}

std::string family_names() {
  std::string names;
  for (const Family& family : families()) {
    if (!names.empty()) names += &family == &families().back() ? " and " : ", ";
    names += "'" + std::string(family.architecture) + "'";
  }
  return names;
}

Status read_window(const ConfigReader& reader, uint64_t fallback, int64_t trained_context, int64_t& window) {
  uint64_t tokens = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("attention.sliding_window", 0, std::numeric_limits<uint64_t>::max(), fallback, tokens));
  window = tokens < static_cast<uint64_t>(trained_context) ? static_cast<int64_t>(tokens) : 0;
  return {};
}

Status read_sliding_pattern(const ConfigReader& reader, int64_t window, int period, ModelConfig& config) {
  constexpr const char* name = "attention.sliding_window_pattern";
  const auto layers = static_cast<size_t>(config.layers);
  config.layer_attention.assign(layers, {});
  const MetaEntry* entry = reader.file().find(reader.key(name));
  if (entry != nullptr && entry->is_array) {
    if (entry->type != MetaType::boolean || entry->count != layers) {
      return corrupt("the key " + in_quotes(entry->key) + " is " + describe_type(*entry) + ", it must be a period or " +
                     std::to_string(layers) + " booleans, one a layer");
    }
    for (size_t i = 0; i < layers; ++i) config.layer_attention[i].sliding_window = entry->bytes[i] != std::byte{0} ? window : 0;
    return {};
  }
  uint64_t every = 0;
  BOUGH_RETURN_IF_ERROR(reader.read(name, 0, kMaxPeriod, static_cast<uint64_t>(period), every));
  for (size_t i = 0; i < layers; ++i) config.layer_attention[i].sliding_window = every == 0 || (i + 1) % every != 0 ? window : 0;
  return {};
}

void set_gemma(ModelConfig& config, int widest) {
  config.embedding_scale = std::sqrt(static_cast<float>(config.d_model));
  config.activation = Activation::gelu_tanh;
  const int width = config.layers == widest ? config.d_model / config.heads : config.head_dim;
  config.attention_scale = 1.0F / std::sqrt(static_cast<float>(width));
}

}  // namespace bough
