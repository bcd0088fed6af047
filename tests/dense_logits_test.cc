// The whole forward pass against llama.cpp on tiny f32 models, KV in f32.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/llama_reference.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::logits_of;
using test::relative_error;
using test::session_of;

constexpr double kTolerance = 1e-4;

struct Family {
  std::string name;
  TinyModel spec;
};

void PrintTo(const Family& family, std::ostream* out) { *out << family.name; }

TinyModel shape(int heads, int kv_heads, int head_dim) {
  TinyModel model;
  model.heads = heads;
  model.kv_heads = kv_heads;
  model.head_dim = head_dim;
  model.trained_context = 1024;
  model.qk_gain = 2.0F;
  return model;
}

TinyModel of(const char* arch, TinyModel model) {
  model.arch = arch;
  return model;
}

std::vector<Family> llamas() {
  std::vector<Family> all = {{"group_1", shape(4, 4, 16)}, {"group_3", shape(9, 3, 32)}, {"group_8", shape(8, 1, 64)}};
  const auto add = [&all](const char* name, const TinyModel& spec) -> TinyModel& {
    all.push_back({name, spec});
    return all.back().spec;
  };
  add("untied", shape(4, 2, 16)).tied = false;
  TinyModel& factors = add("rope_factors", shape(6, 2, 32));
  factors.rope_factors = true;
  factors.rope_base = 500000;
  add("linear_rope_scaling", shape(4, 2, 16)).rope_scale = 4;
  TinyModel& deep = add("deep", shape(4, 2, 32));
  deep.layers = 6;
  deep.d_model = 96;
  add("llama_biases", shape(4, 2, 16)).biases = true;
  TinyModel& fused = add("llama_fused_qkv", shape(4, 2, 32));
  fused.biases = true;
  fused.fused_qkv = true;
  TinyModel& yarn = add("llama_yarn", shape(4, 2, 64));
  yarn.rope_scaling = "yarn";
  yarn.rope_scale = 4;
  yarn.original_context = 256;
  TinyModel& window = add("llama_window_beyond_the_context", shape(4, 2, 16));
  window.sliding_window = 4096;
  return all;
}

std::vector<Family> qwens() {
  std::vector<Family> all;
  for (const std::string arch : {"qwen2", "qwen3"}) {
    TinyModel spec = of(arch.c_str(), shape(6, 2, 32));
    if (arch == "qwen2") spec.d_model = 192;  // llama.cpp takes no other width of the heads
    spec.rope_base = 1e6;
    all.push_back({arch + "_tied", spec});
    TinyModel untied = spec;
    untied.tied = false;
    untied.biases = true;
    all.push_back({arch + "_untied", untied});
    TinyModel yarn = spec;
    yarn.rope_scaling = "yarn";
    yarn.rope_scale = 2.5;
    yarn.rope_magnitude = 1.25;
    yarn.original_context = 200;
    all.push_back({arch + "_yarn", yarn});
  }
  return all;
}

std::vector<Family> gemmas() {
  std::vector<Family> all;
  TinyModel gemma = of("gemma3", shape(4, 2, 32));
  gemma.layers = 7;  // the sixth sees all keys, the others a window
  gemma.rope_base = 1e6;
  gemma.sliding_window = 48;
  all.push_back({"gemma3", gemma});
  TinyModel scaled = gemma;
  scaled.rope_scale = 8;
  scaled.sliding_period = 2;
  scaled.sliding_rope_base = 20000;
  scaled.logit_softcap = 2;
  scaled.tied = false;
  all.push_back({"gemma3_scaled", scaled});
  TinyModel pattern = gemma;
  pattern.layers = 4;
  pattern.sliding_period = 3;
  pattern.sliding_array = true;
  pattern.sliding_window = 129;
  all.push_back({"gemma3_pattern_by_layer", pattern});
  TinyModel no_window = gemma;
  no_window.layers = 2;
  no_window.sliding_window = 0;
  all.push_back({"gemma3_no_window", no_window});
  TinyModel capped = of("gemma2", shape(4, 2, 32));
  capped.sliding_window = 64;
  capped.attention_softcap = 3;
  capped.logit_softcap = 2;
  all.push_back({"gemma2", capped});
  return all;
}

std::vector<Family> phis() {
  std::vector<Family> all;
  TinyModel phi = of("phi3", shape(4, 2, 16));
  phi.tied = false;
  all.push_back({"phi3", phi});
  TinyModel partial = phi;
  partial.tied = true;
  partial.d_model = 128;
  partial.head_dim = 32;
  partial.rope_dims = 24;
  all.push_back({"phi3_partial_rotation", partial});
  TinyModel factors = partial;
  factors.rope_scaling = "longrope";
  factors.long_factors = true;
  factors.rope_magnitude = 1.19;
  factors.original_context = 128;
  all.push_back({"phi3_long_factors", factors});
  factors.original_context = 1024;
  all.push_back({"phi3_short_factors", factors});
  return all;
}

std::vector<Family> families() {
  std::vector<Family> all;
  for (const std::vector<Family>& some : {llamas(), qwens(), gemmas(), phis()}) all.insert(all.end(), some.begin(), some.end());
  return all;
}

class DenseLogits : public testing::TestWithParam<Family> {};

// Every row of an append, then decode rows, each at every plan: nothing is pruned while all fits.
TEST_P(DenseLogits, EqualLlamaCpp) {
  constexpr int64_t kRead = 200, kDecoded = 40;
  const test::TinyFile file(GetParam().spec);
  const std::vector<TokenId> text = test::tiny_text(kRead + kDecoded);
  const auto reference = test::LlamaReference::open(file.path(), kRead + kDecoded);
  ASSERT_NE(reference, nullptr);
  const std::vector<float> expected = reference->logits(text, kRead + kDecoded);
  ASSERT_EQ(expected.size(), text.size() * static_cast<size_t>(tiny_vocab_size()));
  const auto vocab = static_cast<size_t>(tiny_vocab_size());
  for (const char* plan : {"dense", test::kSmallPlan, R"({"mode":"streaming","sinks":64,"window":192,"refresh":[8]})"}) {
    const auto engine = file.engine(plan);
    ASSERT_NE(engine, nullptr);
    const auto session = session_of(*engine);
    ASSERT_TRUE(session->append(std::span(text).first(kRead), {.will_sample = true, .logits = kRead}).ok());
    const std::vector<float> read = logits_of(*session);
    ASSERT_EQ(read.size(), static_cast<size_t>(kRead) * vocab);
    EXPECT_LE(relative_error(read, std::span(expected).first(read.size())), kTolerance) << plan;
    for (size_t i = static_cast<size_t>(kRead); i < text.size(); ++i) {
      ASSERT_TRUE(session->decode(text[i]).ok());
      EXPECT_LE(relative_error(session->logits(), std::span(expected).subspan(i * vocab, vocab)), kTolerance) << plan << ", position " << i;
    }
  }
}

// Past the pruning limit the dense plan still sees everything, at true positions.
TEST_P(DenseLogits, LongerTexts) {
  constexpr int64_t kLength = 700;
  const test::TinyFile file(GetParam().spec);
  const std::vector<TokenId> text = test::tiny_text(kLength, 6);
  const auto reference = test::LlamaReference::open(file.path(), kLength);
  ASSERT_NE(reference, nullptr);
  const auto engine = file.engine("dense");
  ASSERT_NE(engine, nullptr);
  const auto session = session_of(*engine);
  ASSERT_TRUE(session->append(text, {.will_sample = true, .logits = 70}).ok());
  EXPECT_LE(relative_error(session->logits(), reference->logits(text, 70)), kTolerance);
}

// Phi 3's window slides in every layer: two layers of 48 tokens reach 94 back and no further, in an append and in decode.
TEST(SlidingWindow, ReachesAsFarAsTheLayers) {
  TinyModel spec = of("phi3", shape(4, 2, 16));
  spec.sliding_window = 48;
  const test::TinyFile file(spec);
  const auto last_logits = [&file](const std::vector<TokenId>& text, size_t decoded) {
    const auto engine = file.engine("dense");
    const auto session = session_of(*engine);
    EXPECT_TRUE(session->append(std::span(text).first(text.size() - decoded), {.will_sample = true}).ok());
    for (size_t i = text.size() - decoded; i < text.size(); ++i) EXPECT_TRUE(session->decode(text[i]).ok());
    return logits_of(*session);
  };
  const std::vector<TokenId> text = test::tiny_text(300);
  for (const size_t decoded : {size_t{0}, size_t{150}}) {
    const std::vector<float> expected = last_logits(text, decoded);
    for (const size_t back : {size_t{94}, size_t{95}}) {  // two layers: 47 tokens back, and 47 from there
      std::vector<TokenId> other = text;
      TokenId& token = other[text.size() - 1 - back];
      token = token == 3 ? 4 : 3;
      EXPECT_EQ(test::same_bits(last_logits(other, decoded), expected), back > 94) << back << " back, " << decoded << " decoded";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DenseLogits, testing::ValuesIn(families()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bough
