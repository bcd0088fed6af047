// The whole forward pass against llama.cpp on the default model requantised to f32, KV in f32.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "support/attention_case.h"
#include "support/english.h"
#include "support/llama_reference.h"

namespace bough {
namespace {

class DenseLogitsModel : public testing::TestWithParam<int64_t> {};

TEST_P(DenseLogitsModel, LastRowEqualsLlamaCpp) {
  const std::string model = BOUGH_TEST_MODEL_F32;
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model << ": run tools/setup.sh --f32";
  Result<std::unique_ptr<Engine>> engine = Engine::open({model, "dense", DType::f32, 0});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Result<std::vector<TokenId>> tokens = (*engine)->tokenize(test::english_text(GetParam()));
  ASSERT_TRUE(tokens.ok());
  ASSERT_GE(static_cast<int64_t>(tokens->size()), GetParam());
  tokens->resize(static_cast<size_t>(GetParam()));
  const auto reference = test::LlamaReference::open(model, GetParam());
  ASSERT_NE(reference, nullptr);
  const std::vector<float> expected = reference->logits(*tokens, 1);
  Result<std::unique_ptr<Session>> session = (*engine)->new_session();
  ASSERT_TRUE(session.ok());
  ASSERT_TRUE((*session)->append(*tokens, {.will_sample = true}).ok());
  const double error = test::relative_error((*session)->logits(), expected);
  RecordProperty("relative_error", std::to_string(error));
  EXPECT_LE(error, 0.01);
}

std::string length_name(const testing::TestParamInfo<int64_t>& info) { return std::to_string(info.param); }

INSTANTIATE_TEST_SUITE_P(Lengths, DenseLogitsModel, testing::Values(512, 2048), length_name);
// About three minutes on two cores: --gtest_also_run_disabled_tests.
INSTANTIATE_TEST_SUITE_P(DISABLED_Long, DenseLogitsModel, testing::Values(8000), length_name);

}  // namespace
}  // namespace bough
