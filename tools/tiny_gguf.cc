// Writes a tiny model with random weights and a vocabulary of 268 tokens: tiny_gguf --arch qwen3 --out tiny.gguf
#include <ggml.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "support/tiny_gguf.h"

namespace {

// -1 when ggml has none of that name.
int type_of(const std::string& name) {
  for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
    const char* known = ggml_type_name(static_cast<ggml_type>(type));
    if (known != nullptr && name == known) return type;
  }
  return -1;
}

void add_options(CLI::App& app, bough::TinyModel& spec) {
  app.add_option("--arch", spec.arch, "llama, qwen2, qwen3, gemma2, gemma3 or phi3");
  app.add_option("--layers", spec.layers);
  app.add_option("--width", spec.d_model);
  app.add_option("--heads", spec.heads);
  app.add_option("--kv-heads", spec.kv_heads);
  app.add_option("--head-dim", spec.head_dim, "0: width / heads");
  app.add_option("--ffn", spec.ffn, "Width of the feed-forward layer");
  app.add_option("--context", spec.trained_context, "Trained context");
  app.add_option("--rope-base", spec.rope_base);
  app.add_option("--rope-dims", spec.rope_dims, "Elements of a head that turn; 0: all");
  app.add_option("--rope-scaling", spec.rope_scaling, "none, linear, yarn or longrope");
  app.add_option("--rope-scale", spec.rope_scale);
  app.add_option("--rope-magnitude", spec.rope_magnitude, "Attention factor of the scaling");
  app.add_option("--original-context", spec.original_context, "Before scaling");
  app.add_flag("--rope-factors", spec.rope_factors, "Factors of the frequencies, as Llama 3 has them");
  app.add_flag("--long-factors", spec.long_factors, "Factors for short and for long contexts, as Phi 3 has them");
  app.add_option("--sliding-window", spec.sliding_window);
  app.add_option("--sliding-period", spec.sliding_period, "Of so many layers the last sees all keys");
  app.add_option("--sliding-rope-base", spec.sliding_rope_base);
  app.add_option("--attention-softcap", spec.attention_softcap);
  app.add_option("--logit-softcap", spec.logit_softcap);
  app.add_option("--qk-gain", spec.qk_gain, "Above 1 attention is more peaked");
  app.add_flag("--untied{false}", spec.tied, "An output projection of its own");
  app.add_flag("--biases", spec.biases, "Every bias that files of the family may have");
  app.add_flag("--fused-qkv", spec.fused_qkv, "One tensor for q, k and v");
  app.add_flag("--no-chat-template{false}", spec.chat_template);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes a tiny model with random weights and a vocabulary");
  app.option_defaults()->always_capture_default();
  bough::TinyModel spec;
  std::string out, type = "f32";
  uint64_t seed = 1;
  app.add_option("--out", out, "File to write")->required();
  app.add_option("--seed", seed);
  app.add_option("--type", type, "Of the matrices: f32, f16, bf16, q8_0, q4_0, q4_1, ...");
  add_options(app, spec);
  CLI11_PARSE(app, argc, argv);
  spec.type = type_of(type);
  if (spec.type < 0) {
    std::fprintf(stderr, "tiny_gguf: there is no type '%s'\n", type.c_str());
    return 2;
  }
  const bough::Status status = bough::write_tiny_gguf(out, spec, seed);
  if (!status.ok()) std::fprintf(stderr, "tiny_gguf: %s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
