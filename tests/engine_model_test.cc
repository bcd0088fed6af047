// The engine on the packaged model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bough/engine.h"
#include "support/attention_case.h"
#include "support/english.h"

namespace bough {
namespace {

std::unique_ptr<Engine> engine_of(const std::string& plan) {
  Result<std::unique_ptr<Engine>> engine = Engine::open({BOUGH_TEST_MODEL, plan, DType::bf16, 0});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

// Logits of the last 40 rows of 1,750 tokens, then of 10 decode rows.
std::vector<float> run(Engine& engine) {
  Result<std::vector<TokenId>> tokens = engine.tokenize(test::english_text(2100));
  EXPECT_TRUE(tokens.ok());
  EXPECT_GE(tokens->size(), 1760u);
  Result<std::unique_ptr<Session>> session = engine.new_session();
  EXPECT_TRUE(session.ok());
  const std::span<const TokenId> text(*tokens);
  EXPECT_TRUE((*session)->append(text.first(1750), {.will_sample = true, .logits = 40}).ok());
  std::vector<float> all((*session)->logits().begin(), (*session)->logits().end());
  for (const TokenId token : text.subspan(1750, 10)) {
    EXPECT_TRUE((*session)->decode(token).ok());
    all.insert(all.end(), (*session)->logits().begin(), (*session)->logits().end());
  }
  return all;
}

TEST(EngineModel, PrunedEqualsDenseWhileEverythingFits) {
  const auto pruned = engine_of("default"), dense = engine_of("dense");
  ASSERT_TRUE(pruned != nullptr && dense != nullptr);
  ASSERT_GE(pruned->plan().sinks + pruned->plan().window + pruned->plan().k, 1760);
  EXPECT_TRUE(test::same_bits(run(*pruned), run(*dense)));
}

Generation answer(Engine& engine, const std::string& question, const GenerateOptions& options = {.max_tokens = 24}) {
  const ChatMessage message{"user", question};
  const Result<std::vector<TokenId>> prompt = engine.chat_prompt({&message, 1});
  EXPECT_TRUE(prompt.ok()) << prompt.status().message();
  Result<std::unique_ptr<Session>> session = engine.new_session();
  EXPECT_TRUE(session.ok());
  EXPECT_TRUE((*session)->append(*prompt, {.will_sample = true}).ok());
  Result<Generation> generation = (*session)->generate(options);
  EXPECT_TRUE(generation.ok());
  return generation.ok() ? *generation : Generation{};
}

TEST(EngineModel, AnswersTheSameTwice) {
  const auto engine = engine_of("default"), again = engine_of("default");
  ASSERT_TRUE(engine != nullptr && again != nullptr);
  const std::string question = "What is the capital of France?";
  const Generation first = answer(*engine, question);
  EXPECT_THAT(first.text, testing::HasSubstr("Paris"));
  EXPECT_EQ(answer(*engine, question).tokens, first.tokens);
  EXPECT_EQ(answer(*again, question).tokens, first.tokens);
}

// The vocabulary's tokens hold many characters each, parts of quotes and braces among them.
TEST(EngineModel, AnswersBySchema) {
  const auto engine = engine_of("default");
  ASSERT_NE(engine, nullptr);
  GenerateOptions options{.max_tokens = 80};
  options.json_schema = R"({"type":"object","properties":{"city":{"type":"string","maxLength":30},"inhabitants":{"type":"integer",)"
                        R"("minimum":1,"maximum":99999999}},"required":["city","inhabitants"],"additionalProperties":false})";
  for (const float temperature : {0.0F, 1.5F}) {
    options.temperature = temperature;
    const Generation out = answer(*engine, "Name the capital of France and its number of inhabitants.", options);
    EXPECT_EQ(out.finish, Finish::end_of_text);
    const auto json = nlohmann::json::parse(out.text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << out.text;
    EXPECT_TRUE(json.contains("city") && json["city"].is_string()) << out.text;
    EXPECT_TRUE(json.contains("inhabitants") && json["inhabitants"].is_number_integer()) << out.text;
  }
}

TEST(EngineModel, StopStringsAndLogprobs) {
  const auto engine = engine_of("default");
  ASSERT_NE(engine, nullptr);
  const Generation out = answer(*engine, "What is the capital of France?", {.max_tokens = 24, .stop = {"aris"}, .logprobs = 3});
  EXPECT_EQ(out.finish, Finish::stop);
  EXPECT_THAT(out.text, testing::EndsWith("P"));
  ASSERT_EQ(out.logprobs.size(), out.tokens.size());
  for (const TokenLogprobs& token : out.logprobs) EXPECT_EQ(token.chosen.token, token.top[0].token) << "greedy";
}

}  // namespace
}  // namespace bough
