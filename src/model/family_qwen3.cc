// Qwen3: the heads of q and k are normed, and head_dim is a number of its own.
#include "model/family.h"

namespace bough {

Family qwen3_family() {
  return {.architecture = "qwen3",
          .rope_layout = RopeLayout::halves,
          .tensors = {.head_norms = true},
          .read = [](const ConfigReader&, ModelConfig&) { return Status(); }};
}

}  // namespace bough
