// Gemma 2: norms before and after attention and feed forward, scores and logits capped, every other layer's window slides.
#include "base/check.h"
#include "model/family.h"

namespace bough {
namespace {

constexpr int kWidestLayers = 46;  // of the 27B model
constexpr uint64_t kWindow = 4096;
constexpr int kPeriod = 2;

Status read(const ConfigReader& reader, ModelConfig& config) {
  set_gemma(config, kWidestLayers);
  if (!reader.has("attn_logit_softcapping")) config.attention_softcap = 50.0F;
  if (!reader.has("final_logit_softcapping")) config.logit_softcap = 30.0F;
  int64_t window = 0;
  BOUGH_RETURN_IF_ERROR(read_window(reader, kWindow, config.trained_context, window));
  return window == 0 ? Status() : read_sliding_pattern(reader, window, kPeriod, config);
}

}  // namespace

Family gemma2_family() { return {.architecture = "gemma2", .tensors = {.post_norms = true}, .sliding_window = true, .read = read}; }

}  // namespace bough
