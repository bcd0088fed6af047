#include "support/tiny_gguf.h"

#include <cmath>
#include <random>

#include "base/check.h"
#include "ggml.h"

namespace bough {
namespace {

constexpr const char* kChatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// Byte-level BPE writes each byte as one printable character: itself where it is one, else the next free one from U+0100 on.
std::vector<std::string> byte_characters() {
  std::vector<std::string> characters;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const unsigned point = printable ? byte : next++;
    std::string text;
    if (point < 0x80) {
      text += static_cast<char>(point);
    } else {
      text += static_cast<char>(0xc0 | (point >> 6));
      text += static_cast<char>(0x80 | (point & 0x3f));
    }
    characters.push_back(text);
  }
  return characters;
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;  // 1 normal, 3 control
  std::vector<std::string> merges;
};

const Vocabulary& vocabulary() {
  static const Vocabulary built = [] {
    Vocabulary v;
    v.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    v.types = {3, 3, 3};
    const std::vector<std::string> bytes = byte_characters();
    v.tokens.insert(v.tokens.end(), bytes.begin(), bytes.end());
    const std::string space = bytes[' '];
    const std::vector<std::pair<std::string, std::string>> merges = {
        {space, "t"}, {"h", "e"}, {space + "t", "he"}, {"i", "n"}, {"e", "r"}, {space, "a"}, {"o", "n"}, {"n", "d"}, {space + "a", "nd"}};
    for (const auto& [left, right] : merges) {
      v.merges.push_back(left + " " + right);
      v.tokens.push_back(left + right);
    }
    v.types.resize(v.tokens.size(), 1);
    return v;
  }();
  return built;
}

class TensorMaker {
 public:
  TensorMaker(GgufBuilder& builder, int type, uint64_t seed) : builder_(builder), type_(static_cast<ggml_type>(type)), random_(seed) {}

  Status matrix(const std::string& name, int64_t rows, int64_t cols, float gain = 1.0f) {
    const int64_t block = ggml_blck_size(type_);
    if (block == 0 || cols % block != 0) {
      return Status(Code::invalid_argument, name + " has rows of " + std::to_string(cols) + " values, " + ggml_type_name(type_) +
                                                " needs a multiple of " + std::to_string(block));
    }
    std::normal_distribution<float> normal(0.0f, gain / std::sqrt(static_cast<float>(cols)));
    std::vector<float> values(static_cast<size_t>(rows * cols));
    for (float& value : values) value = normal(random_);
    std::vector<std::byte> data(ggml_row_size(type_, cols) * static_cast<size_t>(rows));
    ggml_quantize_chunk(type_, values.data(), data.data(), 0, rows, cols, nullptr);
    builder_.set_tensor(name, type_, {cols, rows}, std::move(data));
    return {};
  }

  void norm(const std::string& name, int64_t cols, float mean = 1.0f) { vector(name, cols, mean, 0.1f); }
  void bias(const std::string& name, int64_t cols) { vector(name, cols, 0.0f, 0.3f); }

 private:
  void vector(const std::string& name, int64_t cols, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(static_cast<size_t>(cols));
    for (float& value : values) value = normal(random_);
    builder_.set_tensor(name, {cols}, values);
  }

  GgufBuilder& builder_;
  ggml_type type_;
  std::mt19937_64 random_;
};

void set_keys(GgufBuilder& builder, const TinyModel& spec, int head_dim) {
  const auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
  const auto set = [&](const char* name, auto value) { builder.set(spec.arch + "." + name, value); };
  builder.set("general.architecture", spec.arch);
  builder.set("general.name", "tiny");
  set("block_count", u32(spec.layers));
  set("context_length", u32(spec.trained_context));
  set("embedding_length", u32(spec.d_model));
  set("feed_forward_length", u32(spec.ffn));
  set("attention.head_count", u32(spec.heads));
  set("attention.head_count_kv", u32(spec.kv_heads));
  set("attention.layer_norm_rms_epsilon", 1e-5f);
  if (spec.head_dim != 0) {
    set("attention.key_length", u32(head_dim));
    set("attention.value_length", u32(head_dim));
  }
  set("rope.dimension_count", u32(spec.rope_dims != 0 ? spec.rope_dims : head_dim));
  set("rope.freq_base", static_cast<float>(spec.rope_base));
  if (spec.rope_scaling != "linear" || spec.rope_scale != 1.0) {
    set("rope.scaling.type", spec.rope_scaling);
    if (spec.rope_scale != 1.0) set("rope.scaling.factor", static_cast<float>(spec.rope_scale));
  }
  if (spec.original_context != 0) set("rope.scaling.original_context_length", u32(spec.original_context));
  if (spec.rope_magnitude != 1.0) set("rope.scaling.attn_factor", static_cast<float>(spec.rope_magnitude));
  if (spec.sliding_window != 0) set("attention.sliding_window", u32(spec.sliding_window));
  if (spec.sliding_period >= 0) {
    if (spec.sliding_array) {
      std::vector<bool> slides;
      for (int i = 0; i < spec.layers; ++i) slides.push_back(spec.sliding_period == 0 || (i + 1) % spec.sliding_period != 0);
      set("attention.sliding_window_pattern", slides);
    } else {
      set("attention.sliding_window_pattern", u32(spec.sliding_period));
    }
  }
  if (spec.sliding_rope_base != 0) set("rope.freq_base_swa", static_cast<float>(spec.sliding_rope_base));
  if (spec.attention_softcap != 0) set("attn_logit_softcapping", static_cast<float>(spec.attention_softcap));
  if (spec.logit_softcap != 0) set("final_logit_softcapping", static_cast<float>(spec.logit_softcap));
  set("vocab_size", u32(tiny_vocab_size()));
}

void set_vocabulary(GgufBuilder& builder, bool chat_template) {
  const Vocabulary& v = vocabulary();
  builder.set("tokenizer.ggml.model", "gpt2");
  builder.set("tokenizer.ggml.pre", "smollm");
  builder.set("tokenizer.ggml.tokens", v.tokens);
  builder.set("tokenizer.ggml.token_type", v.types);
  builder.set("tokenizer.ggml.merges", v.merges);
  builder.set("tokenizer.ggml.bos_token_id", uint32_t{1});
  builder.set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kTinyEos));
  builder.set("tokenizer.ggml.unknown_token_id", uint32_t{0});
  builder.set("tokenizer.ggml.padding_token_id", static_cast<uint32_t>(kTinyEos));
  builder.set("tokenizer.ggml.add_bos_token", false);
  if (chat_template) builder.set("tokenizer.chat_template", kChatTemplate);
}

bool has_head_norms(const TinyModel& spec) { return spec.arch == "qwen3" || spec.arch == "gemma3"; }
bool has_post_norms(const TinyModel& spec) { return spec.arch == "gemma2" || spec.arch == "gemma3"; }
bool is_fused(const TinyModel& spec) { return spec.arch == "phi3"; }

Status make_qkv(TensorMaker& maker, const TinyModel& spec, const std::string& prefix, int head_dim) {
  const int64_t d = spec.d_model, q = int64_t{spec.heads} * head_dim, kv = int64_t{spec.kv_heads} * head_dim;
  const bool biases = spec.biases || spec.arch == "qwen2";
  if (spec.fused_qkv || is_fused(spec)) {
    if (biases) maker.bias(prefix + "attn_qkv.bias", q + 2 * kv);
    return maker.matrix(prefix + "attn_qkv.weight", q + 2 * kv, d);
  }
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "attn_q.weight", q, d, spec.qk_gain));
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "attn_k.weight", kv, d, spec.qk_gain));
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "attn_v.weight", kv, d));
  if (!biases) return {};
  maker.bias(prefix + "attn_q.bias", q);
  maker.bias(prefix + "attn_k.bias", kv);
  maker.bias(prefix + "attn_v.bias", kv);
  return {};
}

Status make_layer(TensorMaker& maker, const TinyModel& spec, int index, int head_dim) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const int64_t d = spec.d_model, q = int64_t{spec.heads} * head_dim;
  maker.norm(prefix + "attn_norm.weight", d);
  BOUGH_RETURN_IF_ERROR(make_qkv(maker, spec, prefix, head_dim));
  if (has_head_norms(spec)) {
    maker.norm(prefix + "attn_q_norm.weight", head_dim, spec.qk_gain);
    maker.norm(prefix + "attn_k_norm.weight", head_dim, spec.qk_gain);
  }
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "attn_output.weight", d, q));
  if (has_post_norms(spec)) maker.norm(prefix + "post_attention_norm.weight", d);
  maker.norm(prefix + "ffn_norm.weight", d);
  if (has_post_norms(spec)) maker.norm(prefix + "post_ffw_norm.weight", d);
  if (!is_fused(spec)) BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "ffn_gate.weight", spec.ffn, d));
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "ffn_up.weight", (is_fused(spec) ? 2 : 1) * spec.ffn, d));
  BOUGH_RETURN_IF_ERROR(maker.matrix(prefix + "ffn_down.weight", d, spec.ffn));
  if (!spec.biases || spec.arch != "llama") return {};
  maker.bias(prefix + "attn_output.bias", d);
  maker.bias(prefix + "ffn_gate.bias", spec.ffn);
  maker.bias(prefix + "ffn_up.bias", spec.ffn);
  maker.bias(prefix + "ffn_down.bias", d);
  return {};
}

// From 1 to just below `most`.
std::vector<float> rising_factors(int pairs, float most) {
  std::vector<float> factors;
  for (int i = 0; i < pairs; ++i) factors.push_back(1.0f + (most - 1.0f) * static_cast<float>(i) / static_cast<float>(pairs));
  return factors;
}

}  // namespace

int tiny_vocab_size() { return static_cast<int>(vocabulary().tokens.size()); }

Result<GgufBuilder> build_tiny_model(const TinyModel& spec, uint64_t seed) {
  GgufBuilder builder;
  const int head_dim = spec.head_dim != 0 ? spec.head_dim : spec.d_model / spec.heads;
  set_keys(builder, spec, head_dim);
  set_vocabulary(builder, spec.chat_template);
  TensorMaker maker(builder, spec.type, seed);
  BOUGH_RETURN_IF_ERROR(maker.matrix("token_embd.weight", tiny_vocab_size(), spec.d_model));
  for (int i = 0; i < spec.layers; ++i) BOUGH_RETURN_IF_ERROR(make_layer(maker, spec, i, head_dim));
  maker.norm("output_norm.weight", spec.d_model);
  if (!spec.tied) BOUGH_RETURN_IF_ERROR(maker.matrix("output.weight", tiny_vocab_size(), spec.d_model));
  if (spec.biases && spec.arch == "qwen2") maker.bias("output.bias", tiny_vocab_size());
  const int pairs = (spec.rope_dims != 0 ? spec.rope_dims : head_dim) / 2;
  if (spec.rope_factors) builder.set_tensor("rope_freqs.weight", {pairs}, rising_factors(pairs, 8.0f));
  if (spec.long_factors) {
    builder.set_tensor("rope_factors_short.weight", {pairs}, rising_factors(pairs, 2.0f));
    builder.set_tensor("rope_factors_long.weight", {pairs}, rising_factors(pairs, 8.0f));
  }
  return builder;
}

Status write_tiny_gguf(const std::string& path, const TinyModel& spec, uint64_t seed) {
  BOUGH_ASSIGN_OR_RETURN(const GgufBuilder builder, build_tiny_model(spec, seed));
  return write_bytes(path, builder.build());
}

}  // namespace bough
