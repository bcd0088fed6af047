// Session::generate on a tiny random model: what each option does to an answer, and what is refused before anything is sampled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "steps/sample.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::tiny_text;
using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();

class GenerateTest : public testing::Test {
 protected:
  GenerateTest() : file_(test::peaked_model()), engine_(file_.engine(test::kSmallPlan)) {}
  void SetUp() override { ASSERT_NE(engine_, nullptr); }

  std::unique_ptr<Session> reader() {
    auto s = test::session_of(*engine_);
    EXPECT_TRUE(s->append(tiny_text(40), {.will_sample = true}).ok());
    return s;
  }
  Generation answer(const GenerateOptions& options) {
    const Result<Generation> out = reader()->generate(options);
    EXPECT_TRUE(out.ok()) << out.status().message();
    return out.ok() ? *out : Generation{};
  }
  std::string refusal(const GenerateOptions& options, Code code = Code::invalid_argument) {
    const auto s = reader();
    const Result<Generation> out = s->generate(options);
    EXPECT_EQ(out.status().code(), code);
    EXPECT_EQ(s->length(), 40);
    return out.status().message();
  }

  test::TinyFile file_;
  std::unique_ptr<Engine> engine_;
};

const GenerateOptions kDrawn{.max_tokens = 60, .temperature = 1.0F, .seed = 5};

TEST_F(GenerateTest, TopKOfOneIsGreedy) {
  GenerateOptions options = kDrawn;
  options.top_k = 1;
  EXPECT_EQ(answer(options).tokens, answer({.max_tokens = 60}).tokens);
  options.top_k = 0;
  options.min_p = 1;
  EXPECT_EQ(answer(options).tokens, answer({.max_tokens = 60}).tokens);
  EXPECT_NE(answer(kDrawn).tokens, answer({.max_tokens = 60}).tokens);
}

TEST_F(GenerateTest, BiasForbidsAndForces) {
  GenerateOptions options = kDrawn;
  const std::vector<TokenId> plain = answer(options).tokens;
  options.logit_bias = {{plain[3], -kInf}};
  const std::vector<TokenId> without = answer(options).tokens;
  EXPECT_EQ(std::count(without.begin(), without.end(), plain[3]), 0);
  options.logit_bias = {{77, 900}};
  EXPECT_EQ(answer(options).tokens, std::vector<TokenId>(60, 77));
}

TEST_F(GenerateTest, PenaltiesEndRepetition) {
  GenerateOptions options{.max_tokens = 60, .logit_bias = {{77, 50}}};
  EXPECT_EQ(answer(options).tokens, std::vector<TokenId>(60, 77));
  options.presence_penalty = 100;
  options.penalty_tokens = 8;
  const std::vector<TokenId> tokens = answer(options).tokens;
  for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(tokens[i] == 77, i % 9 == 0) << i;
}

// The prompt counts among the last tokens.
TEST_F(GenerateTest, PenaltiesSeeThePrompt) {
  const TokenId last = tiny_text(40).back();
  GenerateOptions options{.max_tokens = 1, .presence_penalty = 100, .penalty_tokens = 1, .logit_bias = {{last, 50}}};
  EXPECT_NE(answer(options).tokens[0], last);
  options.penalty_tokens = 0;
  EXPECT_EQ(answer(options).tokens[0], last);
}

TEST_F(GenerateTest, StopStringsAtEveryPlace) {
  const Generation plain = answer(kDrawn);
  ASSERT_GT(plain.text.size(), 20u);
  for (size_t at = 0; at + 4 < plain.text.size(); ++at) {
    for (const size_t bytes : {size_t{1}, size_t{4}}) {
      GenerateOptions options = kDrawn;
      options.stop = {plain.text.substr(at, bytes)};
      const auto s = reader();
      std::string streamed;
      options.on_text = [&](std::string_view piece) {
        streamed += piece;
        return true;
      };
      const Result<Generation> cut = s->generate(options);
      if (!cut.ok()) {  // a part of a character
        EXPECT_THAT(cut.status().message(), HasSubstr("not UTF-8"));
        continue;
      }
      EXPECT_EQ(cut->finish, Finish::stop);
      EXPECT_EQ(cut->text, plain.text.substr(0, plain.text.find(options.stop[0])));
      EXPECT_EQ(streamed, cut->text);
      EXPECT_TRUE(std::equal(cut->tokens.begin(), cut->tokens.end(), plain.tokens.begin()));
      EXPECT_EQ(s->length(), 40 + static_cast<int64_t>(cut->tokens.size()) - 1);
    }
  }
}

TEST_F(GenerateTest, AStopStringThatNeverComes) {
  const Generation plain = answer(kDrawn);
  GenerateOptions options = kDrawn;
  options.stop = {plain.text.substr(plain.text.size() - 3) + "?!?!", "zzzzzz"};
  while (options.stop[0].size() > 4 && (static_cast<unsigned char>(options.stop[0][0]) & 0xC0U) == 0x80U) options.stop[0].erase(0, 1);
  const Generation same = answer(options);
  EXPECT_EQ(same.text, plain.text);
  EXPECT_EQ(same.finish, plain.finish);
}

TEST_F(GenerateTest, LogprobsAreTheModelsOwn) {
  GenerateOptions options = kDrawn;
  options.max_tokens = 5;
  options.logprobs = 3;
  options.temperature = 3;
  options.logit_bias = {{77, 900}};
  const auto s = reader();
  const std::vector<float> row = test::last_row(s->logits());
  const Result<Generation> out = s->generate(options);
  ASSERT_TRUE(out.ok());
  ASSERT_EQ(out->logprobs.size(), out->tokens.size());
  const TokenLogprobs& first = out->logprobs[0];
  EXPECT_EQ(first.chosen.token, 77);
  EXPECT_EQ(first.chosen.logprob, log_prob(row, 77));
  EXPECT_EQ(first.chosen.text, *engine_->detokenize({&first.chosen.token, 1}));
  ASSERT_EQ(first.top.size(), 3u);
  EXPECT_EQ(first.top[0].logprob, log_prob(row, static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin())));
  EXPECT_GE(first.top[0].logprob, first.top[1].logprob);
  EXPECT_GE(first.top[1].logprob, first.top[2].logprob);
  options.logprobs = 0;
  EXPECT_TRUE(answer(options).logprobs[4].top.empty());
  options.logprobs = {};
  EXPECT_TRUE(answer(options).logprobs.empty());
}

TEST_F(GenerateTest, GrammarsHold) {
  for (const float temperature : {0.0F, 1.0F}) {
    for (const int64_t top_k : {0, 3, 200}) {
      GenerateOptions options{.max_tokens = 40, .temperature = temperature, .top_k = top_k, .seed = 3};
      options.grammar = "root ::= ([a-c] [0-9]){4} \".\"";
      const Generation out = answer(options);
      EXPECT_TRUE(std::regex_match(out.text, std::regex("([abc][0-9]){4}\\."))) << out.text;
      EXPECT_EQ(out.finish, Finish::end_of_text);
    }
  }
}

// The choice within a grammar is the choice among the allowed tokens, whatever the model likes better.
TEST_F(GenerateTest, GrammarsChooseTheBestAllowed) {
  const auto s = reader();
  const std::vector<float> row = test::last_row(s->logits());
  TokenId best = -1;
  for (char c = 'a'; c <= 'z'; ++c) {
    const TokenId token = 3 + static_cast<unsigned char>(c);
    if (best < 0 || row[static_cast<size_t>(token)] > row[static_cast<size_t>(best)]) best = token;
  }
  EXPECT_EQ(s->generate({.max_tokens = 1, .grammar = "root ::= [a-z]"})->tokens[0], best);
}

TEST_F(GenerateTest, JsonSchemasHold) {
  for (const uint64_t seed : {1, 2, 3}) {
    GenerateOptions options{.max_tokens = 400, .temperature = 1, .seed = seed};
    options.json_schema = R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,)"
                          R"("maximum":150}},"required":["name","age"],"additionalProperties":false})";
    const Generation out = answer(options);
    EXPECT_EQ(out.finish, Finish::end_of_text);
    const auto json = nlohmann::json::parse(out.text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << out.text;
    EXPECT_EQ(json.size(), 2u);
    EXPECT_TRUE(json["name"].is_string());
    EXPECT_TRUE(json["age"].is_number_integer());
  }
}

TEST_F(GenerateTest, AGrammarWithoutAWayOn) {
  GenerateOptions options{.max_tokens = 5, .grammar = "root ::= \"a\""};
  options.logit_bias = {{3 + 'a', -kInf}};
  EXPECT_THAT(refusal(options, Code::unsupported), HasSubstr("the grammar allows no token of the vocabulary after 0 tokens"));
}

TEST_F(GenerateTest, RefusesBadOptions) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(refusal({.max_tokens = -1}), "max_tokens is -1, it must not be negative");
  EXPECT_EQ(refusal({.temperature = 101}), "temperature is 101, it must be 0 to 100");
  EXPECT_EQ(refusal({.temperature = kNan}), "temperature is nan, it must be 0 to 100");
  EXPECT_EQ(refusal({.top_k = -2}), "top_k is -2, it must not be negative");
  EXPECT_EQ(refusal({.top_p = 0}), "top_p is 0, it must be above 0 and at most 1");
  EXPECT_EQ(refusal({.top_p = kNan}), "top_p is nan, it must be above 0 and at most 1");
  EXPECT_EQ(refusal({.min_p = 2}), "min_p is 2, it must be 0 to 1");
  EXPECT_EQ(refusal({.repeat_penalty = 0}), "repeat_penalty is 0, it must be 0.1 to 10");
  EXPECT_EQ(refusal({.frequency_penalty = kInf}), "frequency_penalty is inf, it must be -100 to 100");
  EXPECT_EQ(refusal({.presence_penalty = -101}), "presence_penalty is -101, it must be -100 to 100");
  EXPECT_EQ(refusal({.penalty_tokens = -1}), "penalty_tokens is -1, it must be 0 to 65536");
  EXPECT_THAT(refusal({.logit_bias = {{-1, 0}}}), HasSubstr("token -1 is outside the vocabulary"));
  EXPECT_THAT(refusal({.logit_bias = {{1 << 20, 0}}}), HasSubstr("token 1048576 is outside the vocabulary"));
  EXPECT_THAT(refusal({.logit_bias = {{5, kNan}}}), HasSubstr("the logit bias of token 5 is nan"));
  EXPECT_THAT(refusal({.logit_bias = {{5, kInf}}}), HasSubstr("the logit bias of token 5 is inf"));
  EXPECT_THAT(refusal({.stop = {""}}), HasSubstr("stop string 1 is empty"));
  EXPECT_THAT(refusal({.grammar = "root ::="
                                  " x"}),
              HasSubstr("the grammar cannot be used"));
  EXPECT_THAT(refusal({.json_schema = "nonsense"}), HasSubstr("the JSON schema cannot be used"));
  EXPECT_THAT(refusal({.grammar = "root ::= \"a\"", .json_schema = "{}"}), HasSubstr("not both"));
  EXPECT_EQ(refusal({.logprobs = 101}), "logprobs is 101, it must be 0 to 100");
  EXPECT_EQ(refusal({.logprobs = -1}), "logprobs is -1, it must be 0 to 100");
}

TEST_F(GenerateTest, NoTokensAtAll) {
  const Generation out = answer({.max_tokens = 0});
  EXPECT_TRUE(out.tokens.empty());
  EXPECT_EQ(out.finish, Finish::max_tokens);
}

}  // namespace
}  // namespace bough
