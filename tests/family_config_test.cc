// What the files of each family say, and what of it is refused.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "support/config_case.h"

namespace bough {
namespace {

using test::expect_refused;
using test::read;
using test::tiny;
using ::testing::HasSubstr;

ModelConfig config_of(const TinyModel& spec) {
  const auto [status, config] = read(tiny(spec));
  EXPECT_TRUE(status.ok()) << status.message();
  return config;
}

TinyModel gemma3(int layers) {
  TinyModel spec;
  spec.arch = "gemma3";
  spec.layers = layers;
  spec.head_dim = 32;
  spec.rope_base = 1e6;
  spec.sliding_window = 48;
  return spec;
}

TinyModel phi3() {
  TinyModel spec;
  spec.arch = "phi3";
  return spec;
}

std::vector<int64_t> windows(const ModelConfig& config) {
  std::vector<int64_t> all;
  for (const LayerAttention& layer : config.layer_attention) all.push_back(layer.sliding_window);
  return all;
}

TEST(FamilyConfig, LayoutsOfRope) {
  for (const char* arch : {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"}) {
    TinyModel spec;
    spec.arch = arch;
    const RopeLayout layout = std::string(arch) == "llama" ? RopeLayout::interleaved : RopeLayout::halves;
    EXPECT_EQ(config_of(spec).rope.layout, layout) << arch;
  }
}

TEST(FamilyConfig, Plain) {
  for (const char* arch : {"llama", "qwen2", "qwen3", "phi3"}) {
    TinyModel spec;
    spec.arch = arch;
    const ModelConfig config = config_of(spec);
    EXPECT_EQ(config.activation, Activation::silu) << arch;
    EXPECT_EQ(config.embedding_scale, 1.0F);
    EXPECT_FLOAT_EQ(config.attention_scale, 0.25F);
    EXPECT_EQ(config.attention_softcap, 0.0F);
    EXPECT_EQ(config.logit_softcap, 0.0F);
    EXPECT_TRUE(config.layer_attention.empty());
    EXPECT_TRUE(config.other_ropes.empty());
  }
}

TEST(FamilyConfig, Gemma3) {
  const ModelConfig config = config_of(gemma3(7));
  EXPECT_EQ(config.activation, Activation::gelu_tanh);
  EXPECT_FLOAT_EQ(config.embedding_scale, 8.0F);
  EXPECT_FLOAT_EQ(config.attention_scale, 1.0F / std::sqrt(32.0F));
  EXPECT_EQ(windows(config), (std::vector<int64_t>{48, 48, 48, 48, 48, 0, 48}));
  ASSERT_EQ(config.other_ropes.size(), 1u);
  EXPECT_EQ(config.rope.base, 1e6);
  EXPECT_EQ(config.other_ropes[0].base, 1e4);
  for (const LayerAttention& layer : config.layer_attention) EXPECT_EQ(layer.rope, layer.sliding_window > 0 ? 1 : 0);
}

// Linear scaling is the global layers' alone.
TEST(FamilyConfig, Gemma3Ropes) {
  TinyModel spec = gemma3(6);
  spec.rope_scale = 8;
  spec.sliding_rope_base = 5e4;
  const ModelConfig config = config_of(spec);
  EXPECT_EQ(config.rope.scale, 8.0);
  EXPECT_EQ(config.other_ropes[0].scale, 1.0);
  EXPECT_EQ(config.other_ropes[0].base, 5e4);
  EXPECT_DOUBLE_EQ(rope_params(config.rope, 100).frequencies[0], 0.125);
  EXPECT_DOUBLE_EQ(rope_params(config.other_ropes[0], 100).frequencies[0], 1.0);
}

// The query's scale of the largest models comes from the width.
TEST(FamilyConfig, GemmaQueryScales) {
  for (const auto& [arch, layers] : {std::pair("gemma2", 46), std::pair("gemma3", 62)}) {
    TinyModel spec = gemma3(layers);
    spec.arch = arch;
    EXPECT_FLOAT_EQ(config_of(spec).attention_scale, 1.0F / std::sqrt(16.0F)) << arch;
  }
}

TEST(FamilyConfig, SlidingPatterns) {
  TinyModel spec = gemma3(5);
  spec.sliding_period = 2;
  EXPECT_EQ(windows(config_of(spec)), (std::vector<int64_t>{48, 0, 48, 0, 48}));
  spec.sliding_period = 0;
  EXPECT_EQ(windows(config_of(spec)), (std::vector<int64_t>(5, 48)));
  spec.sliding_period = 1;
  EXPECT_EQ(windows(config_of(spec)), (std::vector<int64_t>(5, 0)));
  spec.sliding_period = 3;
  spec.sliding_array = true;
  EXPECT_EQ(windows(config_of(spec)), (std::vector<int64_t>{48, 48, 0, 48, 48}));
}

TEST(FamilyConfig, Gemma2) {
  TinyModel spec;
  spec.arch = "gemma2";
  spec.layers = 3;
  const ModelConfig config = config_of(spec);
  EXPECT_EQ(config.attention_softcap, 50.0F);
  EXPECT_EQ(config.logit_softcap, 30.0F);
  EXPECT_EQ(windows(config), (std::vector<int64_t>{4096, 0, 4096}));
  EXPECT_TRUE(config.other_ropes.empty());
  spec.attention_softcap = 7;
  spec.logit_softcap = 6;
  spec.sliding_window = 100;
  const ModelConfig other = config_of(spec);
  EXPECT_EQ(other.attention_softcap, 7.0F);
  EXPECT_EQ(other.logit_softcap, 6.0F);
  EXPECT_EQ(windows(other), (std::vector<int64_t>{100, 0, 100}));
}

// A window that holds the trained context changes nothing; a smaller one slides in every layer.
TEST(FamilyConfig, Phi3Windows) {
  TinyModel spec = phi3();
  spec.trained_context = 1024;
  spec.sliding_window = 1024;
  EXPECT_TRUE(config_of(spec).layer_attention.empty());
  spec.sliding_window = 1023;
  EXPECT_EQ(windows(config_of(spec)), (std::vector<int64_t>{1023, 1023}));
}

TEST(FamilyConfig, PartOfAHeadTurns) {
  TinyModel spec = phi3();
  spec.rope_dims = 12;
  const RopeParams params = rope_params(config_of(spec).rope, 64);
  EXPECT_EQ(params.dims, 12);
  ASSERT_EQ(params.frequencies.size(), 6u);
  EXPECT_DOUBLE_EQ(params.frequencies[3], std::pow(10000.0, -0.5));
}

TEST(FamilyConfig, FactorsByLength) {
  TinyModel spec = phi3();
  spec.rope_scaling = "longrope";
  spec.long_factors = true;
  spec.original_context = 256;
  spec.rope_magnitude = 1.25;
  const RopeConfig rope = config_of(spec).rope;
  EXPECT_EQ(rope.scaling, RopeScaling::longrope);
  EXPECT_EQ(rope.magnitude, 1.25);
  const double plain = std::pow(10000.0, -0.5);  // of pair 4 of 8, whose factors are 1.5 and 4.5
  EXPECT_DOUBLE_EQ(rope_params(rope, 256).frequencies[4], plain / 1.5);
  EXPECT_DOUBLE_EQ(rope_params(rope, 257).frequencies[4], plain / 4.5);
}

// Pairs that turn quickly keep their frequency, slow ones are divided, and the magnitude grows with the factor.
TEST(FamilyConfig, Yarn) {
  TinyModel spec{.arch = "qwen2", .head_dim = 64};
  spec.rope_scaling = "yarn";
  spec.rope_scale = 4;
  spec.original_context = 4096;
  const RopeConfig rope = config_of(spec).rope;
  const RopeParams params = rope_params(rope, 64);
  EXPECT_DOUBLE_EQ(params.magnitude, 1.0 + 0.1 * std::log(4.0));
  // dims / 2 * ln(4096 / (2 pi turns)) / ln(base): 10.47 pairs make 32 turns or more, 22.51 make one.
  for (size_t i = 0; i < 32; ++i) {
    const double plain = std::pow(10000.0, -static_cast<double>(i) / 32);
    const double kept = i <= 10 ? 1.0 : i >= 23 ? 0.0 : (23.0 - static_cast<double>(i)) / 13.0;
    EXPECT_NEAR(params.frequencies[i] / plain, kept + (1 - kept) / 4, 1e-12) << "pair " << i;
  }
}

TEST(FamilyConfigRefuses, SlidingPatterns) {
  const char* key = "gemma3.attention.sliding_window_pattern";
  expect_refused(gemma3(5), key, std::vector<bool>(4, true), Code::corrupt, "must be a period or 5 booleans, one a layer");
  expect_refused(gemma3(5), key, std::vector<int32_t>(5, 1), Code::corrupt, "is an array of 5 i32, it must be a period or 5 booleans");
  expect_refused(gemma3(5), key, uint32_t{513}, Code::corrupt, "is 513, it must be from 0 to 512");
  expect_refused(gemma3(5), key, "all", Code::corrupt, key);
  expect_refused(gemma3(5), "gemma3.rope.freq_base_swa", -1.0f, Code::corrupt, "'gemma3.rope.freq_base_swa' is -1");
  expect_refused(gemma3(5), "gemma3.attention.sliding_window", -1, Code::corrupt, "is -1, it must not be negative");
}

TEST(FamilyConfigRefuses, ShapesOfSlidingLayers) {
  expect_refused(gemma3(5), "gemma3.attention.key_length_swa", uint32_t{16}, Code::unsupported, "is 16, other than the head dimension 32");
  expect_refused(gemma3(5), "gemma3.rope.dimension_count_swa", uint32_t{16}, Code::unsupported, "sliding layers rotate 16 elements");
}

TEST(FamilyConfigRefuses, Softcaps) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* name : {"gemma3.attn_logit_softcapping", "gemma3.final_logit_softcapping"}) {
    for (const float value : {-1.0f, nan, 2e6f}) expect_refused(gemma3(5), name, value, Code::corrupt, "it must be from 0 to 1000000");
  }
}

TEST(FamilyConfigRefuses, WindowsWhereTheFamilyHasNone) {
  for (const char* arch : {"llama", "qwen2", "qwen3"}) {
    TinyModel spec;
    spec.arch = arch;
    spec.sliding_window = 8191;
    EXPECT_THAT(read(tiny(spec)).status.message(), HasSubstr("window of 8191 tokens, which is not supported for the architecture"));
    spec.sliding_window = 8192;
    EXPECT_TRUE(read(tiny(spec)).status.ok()) << arch;
  }
}

TEST(FamilyConfigRefuses, Rotations) {
  expect_refused(phi3(), "phi3.rope.dimension_count", uint32_t{18}, Code::corrupt,
                 "is 18, it must be even and at most the head dimension 16");
  expect_refused(phi3(), "phi3.rope.dimension_count", uint32_t{7}, Code::corrupt, "is 7, it must be even");
  TinyModel qwen;
  qwen.arch = "qwen3";
  expect_refused(qwen, "qwen3.rope.dimension_count", uint32_t{8}, Code::unsupported, "rotates 8 of the 16 elements");
}

TEST(FamilyConfigRefuses, Yarn) {
  TinyModel spec{.arch = "qwen2"};
  spec.rope_scaling = "yarn";
  spec.rope_scale = 4;
  expect_refused(spec, "qwen2.rope.scaling.original_context_length", uint32_t{0}, Code::corrupt, "is 0, it must be from 1 to");
  expect_refused(spec, "qwen2.rope.scaling.yarn_beta_fast", 0.5f, Code::corrupt, "is 0.5, it must be at least the slow one, 1");
  expect_refused(spec, "qwen2.rope.scaling.attn_factor", 0.0f, Code::corrupt, "'qwen2.rope.scaling.attn_factor' is 0");
  expect_refused(spec, "qwen2.rope.freq_base", 1.0f, Code::corrupt, "is 1, with YaRN it must be above 1");
}

TEST(FamilyConfigRefuses, LongFactors) {
  TinyModel spec = phi3();
  spec.rope_scaling = "longrope";
  EXPECT_THAT(read(tiny(spec)).status.message(), HasSubstr("'rope_factors_short.weight' is missing, longrope scaling needs it"));
  spec.long_factors = true;
  GgufBuilder builder = tiny(spec);
  builder.erase_tensor("rope_factors_long.weight");
  EXPECT_THAT(read(builder).status.message(), HasSubstr("'rope_factors_long.weight' is missing"));
  builder.set_tensor("rope_factors_long.weight", {4}, std::vector<float>(4, 1.0f));
  EXPECT_THAT(read(builder).status.message(), HasSubstr("'rope_factors_long.weight' is f32 of shape [4], it must be f32 of shape [8]"));
  builder.set_tensor("rope_factors_long.weight", {8}, {1, 1, 1, -2, 1, 1, 1, 1});
  EXPECT_THAT(read(builder).status.message(), HasSubstr("value 3 of the tensor 'rope_factors_long.weight' is -2"));
  TinyModel qwen{.arch = "qwen2"};
  qwen.rope_scaling = "longrope";
  EXPECT_THAT(read(tiny(qwen)).status.message(), HasSubstr("'longrope' is not supported for the architecture 'qwen2'"));
}

}  // namespace
}  // namespace bough
