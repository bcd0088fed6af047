// Qwen2 and Qwen2.5: biases on q, k and v.
#include "model/family.h"

namespace bough {

Family qwen2_family() {
  return {.architecture = "qwen2",
          .rope_layout = RopeLayout::halves,
          .tensors = {.output_bias = true},
          .read = [](const ConfigReader&, ModelConfig&) { return Status(); }};
}

}  // namespace bough
