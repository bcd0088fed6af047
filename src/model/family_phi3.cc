// Phi 3, 3.5 and 4: fused projections, a part of each head may turn, frequencies by factors for short and for long contexts.
#include "base/check.h"
#include "model/family.h"

namespace bough {
namespace {

// The window slides in every layer, unless it holds the trained context anyway.
Status read(const ConfigReader& reader, ModelConfig& config) {
  int64_t window = 0;
  BOUGH_RETURN_IF_ERROR(read_window(reader, 0, config.trained_context, window));
  return window == 0 ? Status() : read_sliding_pattern(reader, window, 0, config);
}

}  // namespace

Family phi3_family() {
  return {.architecture = "phi3",
          .tensors = {.fused_gate_up = true, .long_factors = true},
          .partial_rotation = true,
          .sliding_window = true,
          .read = read};
}

}  // namespace bough
