// Gemma 3: Gemma 2's norms, heads of q and k normed, no caps; of six layers five have a sliding window and RoPE of their own.
#include <limits>

#include "base/check.h"
#include "model/family.h"

namespace bough {
namespace {

constexpr int kWidestLayers = 62;  // of the 27B model
constexpr int kPeriod = 6;
constexpr double kLocalBase = 10000.0;

Status read(const ConfigReader& reader, ModelConfig& config) {
  set_gemma(config, kWidestLayers);
  int64_t window = 0;
  BOUGH_RETURN_IF_ERROR(read_window(reader, 0, std::numeric_limits<int64_t>::max(), window));
  if (window == 0) return {};
  BOUGH_RETURN_IF_ERROR(read_sliding_pattern(reader, window, kPeriod, config));
  RopeConfig local;
  local.layout = config.rope.layout;
  local.dims = config.rope.dims;
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.freq_base_swa", std::numeric_limits<float>::max(), kLocalBase, local.base));
  config.other_ropes = {local};
  for (LayerAttention& layer : config.layer_attention) layer.rope = layer.sliding_window > 0 ? 1 : 0;
  return {};
}

}  // namespace

Family gemma3_family() {
  return {.architecture = "gemma3", .tensors = {.head_norms = true, .post_norms = true}, .sliding_window = true, .read = read};
}

}  // namespace bough
