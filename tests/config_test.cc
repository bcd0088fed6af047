#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "model/vocabulary.h"
#include "support/config_case.h"

namespace bough {
namespace {

using test::expect_refused;
using test::read;
using test::tiny;
using ::testing::HasSubstr;

TEST(Config, ReadsEveryField) {
  const TinyModel spec{.layers = 3, .d_model = 96, .heads = 6, .kv_heads = 2, .ffn = 160, .trained_context = 2048, .rope_base = 5e5};
  const auto [status, config] = read(tiny(spec));
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "tiny");
  EXPECT_EQ(config.layers, 3);
  EXPECT_EQ(config.d_model, 96);
  EXPECT_EQ(config.heads, 6);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.group(), 3);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.ffn, 160);
  EXPECT_EQ(config.vocab, tiny_vocab_size());
  EXPECT_EQ(config.trained_context, 2048);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.rope.layout, RopeLayout::interleaved);
  EXPECT_EQ(config.rope.dims, 16);
  EXPECT_EQ(config.rope.base, 5e5);
  EXPECT_EQ(config.rope.scale, 1.0);
  EXPECT_TRUE(config.rope.factors.empty());
  EXPECT_TRUE(config.tied_output);
}

TEST(Config, UntiedOutputAndHeadDimOfItsOwn) {
  const auto [status, config] = read(tiny({.head_dim = 32, .tied = false}));
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_FALSE(config.tied_output);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.q_width(), 128);
  EXPECT_EQ(config.kv_width(), 64);
}

TEST(Config, Defaults) {
  GgufBuilder builder = tiny();
  for (const char* key : {"llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count", "llama.vocab_size"}) {
    builder.erase(key);
  }
  builder.erase("general.name");
  const auto [status, config] = read(builder);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.rope.base, 10000.0);
  EXPECT_EQ(config.rope.dims, 16);
  EXPECT_EQ(config.name, "");
}

TEST(Config, RopeScalingAndFactors) {
  const auto [status, config] = read(tiny({.rope_scale = 4, .rope_factors = true}));
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(config.rope.scale, 4.0);
  ASSERT_EQ(config.rope.factors.size(), 8u);
  EXPECT_EQ(config.rope.factors[0], 1.0f);
  const RopeParams params = rope_params(config.rope, 64);
  ASSERT_EQ(params.frequencies.size(), 8u);
  EXPECT_DOUBLE_EQ(params.frequencies[0], 0.25);
  EXPECT_NEAR(params.frequencies[4], std::pow(10000.0, -0.5) / 4 / config.rope.factors[4], 1e-12);
}

TEST(ConfigRefuses, Architectures) {
  expect_refused({}, "general.architecture", "mamba", Code::unsupported,
                 "'mamba' is not supported, 'llama', 'qwen2', 'qwen3', 'gemma2', 'gemma3' and 'phi3' are");
  expect_refused({}, "general.architecture", uint32_t{1}, Code::corrupt, "'general.architecture' is u32");
  GgufBuilder builder = tiny();
  builder.erase("general.architecture");
  EXPECT_THAT(read(builder).status.message(), HasSubstr("'general.architecture' is missing"));
}

TEST(ConfigRefuses, MissingNumbers) {
  for (const char* name : {"block_count", "embedding_length", "feed_forward_length", "context_length", "attention.head_count",
                           "attention.layer_norm_rms_epsilon"}) {
    GgufBuilder builder = tiny();
    builder.erase(std::string("llama.") + name);
    const Status status = read(builder).status;
    EXPECT_EQ(status.code(), Code::corrupt);
    EXPECT_THAT(status.message(), HasSubstr(std::string("'llama.") + name + "' is missing"));
  }
}

TEST(ConfigRefuses, NumbersOutOfRange) {
  for (const char* name : {"block_count", "embedding_length", "feed_forward_length", "context_length", "attention.head_count",
                           "attention.head_count_kv", "rope.dimension_count"}) {
    const std::string key = std::string("llama.") + name;
    expect_refused({}, key, uint32_t{0}, Code::corrupt, key + "' is 0, it must be from 1 to ");
    expect_refused({}, key, int32_t{-1}, Code::corrupt, key + "' is -1, it must not be negative");
    expect_refused({}, key, ~uint64_t{0}, Code::corrupt, key + "' is 18446744073709551615, it must be from 1 to ");
  }
  expect_refused({}, "llama.block_count", uint32_t{513}, Code::corrupt, "'llama.block_count' is 513, it must be from 1 to 512");
  expect_refused({}, "llama.block_count", "two", Code::corrupt, "'llama.block_count' is string, it must be an integer");
}

TEST(ConfigRefuses, FloatsOutOfRange) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -1.0f, nan, infinity}) {
    expect_refused({}, "llama.attention.layer_norm_rms_epsilon", value, Code::corrupt, "it must be above 0 and at most 1");
    expect_refused({}, "llama.rope.freq_base", value, Code::corrupt, "'llama.rope.freq_base' is ");
  }
  for (const float value : {-1.0f, nan, infinity}) {
    expect_refused({}, "llama.rope.scaling.factor", value, Code::corrupt, "'llama.rope.scaling.factor' is ");
  }
}

TEST(ConfigRefuses, HeadsThatDoNotFit) {
  expect_refused({}, "llama.attention.head_count_kv", uint32_t{3}, Code::corrupt, "4 heads, which is no multiple of its 3 KV heads");
  expect_refused({}, "llama.attention.head_count_kv", uint32_t{8}, Code::corrupt, "is 8, it must be from 1 to 4");
  expect_refused({}, "llama.attention.head_count", uint32_t{6}, Code::corrupt, "width 64 is no multiple of its 6 heads");
  expect_refused({}, "llama.attention.key_length", uint32_t{32}, Code::unsupported, "key length 32 and the value length 16 differ");
  expect_refused({}, "llama.rope.dimension_count", uint32_t{8}, Code::unsupported, "rotates 8 of the 16 elements");
  for (const uint32_t length : {17u, 258u}) {
    GgufBuilder builder = tiny();
    builder.set("llama.attention.key_length", length);
    builder.set("llama.attention.value_length", length);
    const Status status = read(builder).status;
    EXPECT_EQ(status.code(), Code::unsupported);
    EXPECT_THAT(status.message(), HasSubstr("is " + std::to_string(length) + ", it must be even and from 2 to 256"));
  }
}

TEST(ConfigRefuses, WhatIsNotComputed) {
  expect_refused({}, "llama.expert_count", uint32_t{8}, Code::unsupported, "mixture of 8 experts");
  expect_refused({}, "llama.rope.scaling.type", "dynamic", Code::unsupported,
                 "'dynamic' is not supported, 'none', 'linear', 'yarn' and 'longrope' are");
  for (const char* name : {"attention.scale", "attention.clamp_kqv", "logit_scale", "residual_scale", "embedding_scale",
                           "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier"}) {
    const std::string key = std::string("llama.") + name;
    expect_refused({}, key, 0.5f, Code::unsupported, "'" + key + "' is 0.5, only ");
  }
  expect_refused({}, "llama.attention.causal", false, Code::unsupported, "not causal");
  expect_refused({}, "llama.attention.sliding_window", uint32_t{512}, Code::unsupported,
                 "window of 512 tokens, which is not supported for the architecture 'llama'");
  expect_refused({}, "split.count", uint32_t{3}, Code::unsupported, "one of 3 parts");
}

TEST(ConfigRefuses, RopeFactors) {
  GgufBuilder builder = tiny();
  builder.set_tensor("rope_freqs.weight", {4}, std::vector<float>(4, 1.0f));
  EXPECT_THAT(read(builder).status.message(), HasSubstr("'rope_freqs.weight' is f32 of shape [4], it must be f32 of shape [8]"));
  builder.set_tensor("rope_freqs.weight", {8}, {1, 1, 0, 1, 1, 1, 1, 1});
  EXPECT_THAT(read(builder).status.message(), HasSubstr("value 2 of the tensor 'rope_freqs.weight' is 0"));
}

TEST(ConfigRefuses, Vocabularies) {
  const int tokens = tiny_vocab_size();
  const std::string count = std::to_string(tokens);
  expect_refused({}, "llama.vocab_size", uint32_t{100}, Code::corrupt, "is 100, the vocabulary has " + count + " tokens");
  expect_refused({}, "tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"}, Code::corrupt, "has " + count + " values for 2 tokens");
  expect_refused({}, "tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "a"}, Code::corrupt, "token 2, 'a', occurs twice");
  expect_refused({}, "tokenizer.ggml.tokens", std::vector<std::string>{std::string("a\0b", 3)}, Code::corrupt, "holds a NUL");
  expect_refused({}, "tokenizer.ggml.tokens", std::vector<std::string>{}, Code::corrupt, "has 0 tokens");
  expect_refused({}, "tokenizer.ggml.tokens", "text", Code::corrupt, "must be an array of strings");
  expect_refused({}, "tokenizer.ggml.token_type", std::vector<int32_t>{1}, Code::corrupt, "has 1 values for " + count + " tokens");
  expect_refused({}, "tokenizer.ggml.token_type", std::vector<float>{1}, Code::corrupt, "must be an array of i32");
  expect_refused({}, "tokenizer.ggml.scores", std::vector<float>{1}, Code::corrupt, "has 1 values for " + count + " tokens");
  expect_refused({}, "tokenizer.ggml.merges", std::vector<int32_t>{1}, Code::corrupt, "must be an array of strings");
  expect_refused({}, "tokenizer.ggml.bos_token_id", static_cast<uint32_t>(tokens), Code::corrupt, "is " + count + ", it must be below");
  expect_refused({}, "tokenizer.ggml.model", "none", Code::unsupported, "no vocabulary");
}

TEST(ConfigRefuses, EmbeddingOfAnotherSize) {
  GgufBuilder builder = tiny();
  builder.erase("llama.vocab_size");
  builder.set_tensor("token_embd.weight", {64, 2}, std::vector<float>(128, 0.5f));
  const Status status = read(builder).status;
  EXPECT_EQ(status.code(), Code::corrupt);
  EXPECT_THAT(status.message(), HasSubstr("'token_embd.weight' has the shape [64, 2]"));
  builder.erase_tensor("token_embd.weight");
  EXPECT_THAT(read(builder).status.message(), HasSubstr("'token_embd.weight' is missing"));
}

}  // namespace
}  // namespace bough
