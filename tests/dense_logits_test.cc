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

std::vector<Family> families() {
  std::vector<Family> all = {{"group_1", shape(4, 4, 16)}, {"group_3", shape(9, 3, 32)}, {"group_8", shape(8, 1, 64)}};
  all.push_back({"untied", shape(4, 2, 16)});
  all.back().spec.tied = false;
  all.push_back({"rope_factors", shape(6, 2, 32)});
  all.back().spec.rope_factors = true;
  all.back().spec.rope_base = 500000;
  all.push_back({"linear_rope_scaling", shape(4, 2, 16)});
  all.back().spec.rope_scale = 4;
  all.push_back({"deep", shape(4, 2, 32)});
  all.back().spec.layers = 6;
  all.back().spec.d_model = 96;
  for (const char* arch : {"qwen2", "qwen3"}) {
    all.push_back({std::string(arch) + "_tied", shape(6, 2, 32)});
    all.back().spec.arch = arch;
    if (std::string(arch) == "qwen2") all.back().spec.d_model = 192;  // llama.cpp takes no other width of the heads
    all.back().spec.rope_base = 1e6;
    all.push_back({std::string(arch) + "_untied", all.back().spec});
    all.back().spec.tied = false;
    all.back().spec.biases = true;
  }
  all.push_back({"llama_biases", shape(4, 2, 16)});
  all.back().spec.biases = true;
  all.push_back({"llama_fused_qkv", shape(4, 2, 32)});
  all.back().spec.biases = true;
  all.back().spec.fused_qkv = true;
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

INSTANTIATE_TEST_SUITE_P(Families, DenseLogits, testing::ValuesIn(families()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bough
