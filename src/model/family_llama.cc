// Llama and what shares its files: Mistral, SmolLM, TinyLlama. Pairs of q and k are stored interleaved.
#include "model/family.h"

namespace bough {

Family llama_family() {
  return {.architecture = "llama",
          .rope_layout = RopeLayout::interleaved,
          .tensors = {.layer_biases = true, .rope_freqs = true, .long_factors = true},
          .read = [](const ConfigReader&, ModelConfig&) { return Status(); }};
}

}  // namespace bough
