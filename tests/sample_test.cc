// sample, top and adjust: every body against closed forms and the oracle; log-probabilities.
#include "steps/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "steps/adjust.h"
#include "steps/model_bodies.h"

namespace bough {
namespace {

using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Both bodies; they have to agree.
Result<TokenId> draw(const std::vector<float>& logits, SampleArgs args) {
  args.logits = logits.data();
  args.vocab = static_cast<int64_t>(logits.size());
  const Result<TokenId> expected = model_bodies().back().sample(args);
  for (const ModelBodies& bodies : model_bodies()) {
    const Result<TokenId> token = bodies.sample(args);
    EXPECT_EQ(token.ok(), expected.ok()) << bodies.name;
    EXPECT_EQ(token.status().message(), expected.status().message()) << bodies.name;
    EXPECT_EQ(token.ok() ? *token : -1, expected.ok() ? *expected : -1) << bodies.name << ", step " << args.step;
  }
  return expected;
}

Result<TokenId> draw(const std::vector<float>& logits, float temperature, uint64_t seed = 0, uint64_t step = 0) {
  return draw(logits, {.temperature = temperature, .seed = seed, .step = step});
}

std::string error_of(const std::vector<float>& logits, const SampleArgs& args, Code code) {
  const auto result = draw(logits, args);
  EXPECT_EQ(result.status().code(), code);
  return result.status().message();
}

std::string error_of(const std::vector<float>& logits, float temperature, Code code) {
  return error_of(logits, SampleArgs{.temperature = temperature}, code);
}

// Pearson's chi-square of draws against probabilities; tokens of probability 0 must never come.
void expect_distribution(const std::vector<float>& logits, SampleArgs args, const std::vector<double>& probabilities) {
  constexpr int kDraws = 20000;
  std::vector<int> seen(logits.size());
  for (args.step = 0; args.step < kDraws; ++args.step) ++seen[static_cast<size_t>(*draw(logits, args))];
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = kDraws * probabilities[i];
    if (probabilities[i] == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i;
      continue;
    }
    chi_square += (seen[i] - expected) * (seen[i] - expected) / expected;
    ++cells;
  }
  const double freedom = cells - 1;
  EXPECT_LT(chi_square, freedom + 5 * std::sqrt(2 * freedom) + 1)
      << "top_k " << args.top_k << ", top_p " << args.top_p << ", min_p " << args.min_p;
}

TEST(Sample, GreedyTakesTheLowestOfTheBest) {
  EXPECT_EQ(*draw({1, 3, -2, 3, 2}, 0), 1);
  EXPECT_EQ(*draw({-kInf, -kInf, -5}, 0), 2);
  EXPECT_EQ(*draw({7}, 0, 1, 2), 0);
  EXPECT_EQ(*draw({-0.0f, 0.0f}, 0), 0);
}

TEST(Sample, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {0, 1, -kInf, 2, -1};
  constexpr int kDraws = 40000;
  for (float temperature : {0.5f, 1.0f, 3.0f}) {
    double total = 0;
    for (float logit : logits) total += std::exp(logit / temperature);
    std::vector<int> seen(logits.size());
    for (uint64_t step = 0; step < kDraws; ++step) ++seen[static_cast<size_t>(*draw(logits, temperature, 42, step))];
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = std::exp(logits[i] / temperature) / total;
      EXPECT_NEAR(seen[i], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << "token " << i << " at " << temperature;
    }
  }
}

TEST(Sample, DrawDependsOnSeedAndStepAlone) {
  const std::vector<float> logits(1000, 0.0f);
  std::vector<TokenId> forward, backward(64);
  for (uint64_t step = 0; step < 64; ++step) forward.push_back(*draw(logits, 1, 7, step));
  for (uint64_t step = 64; step-- > 0;) backward[step] = *draw(logits, 1, 7, step);
  EXPECT_EQ(forward, backward);
  EXPECT_GT(std::set<TokenId>(forward.begin(), forward.end()).size(), 50u);
  int equal = 0;
  for (uint64_t step = 0; step + 1 < 64; ++step) equal += forward[step + 1] == *draw(logits, 1, 8, step);
  EXPECT_LT(equal, 5);
}

TEST(Sample, ExtremeTemperaturesAndLogits) {
  for (uint64_t step = 0; step < 100; ++step) {
    EXPECT_EQ(*draw({1, 2, 0}, 1e-40f, 3, step), 1);
    EXPECT_EQ(*draw({-3e38f, 3e38f}, 1, 3, step), 1);
    EXPECT_NE(*draw({0, -kInf, 0}, 3e38f, 3, step), 1);
  }
}

TEST(Sample, RefusesWhatHasNoAnswer) {
  EXPECT_THAT(error_of({0, kNan, 1}, 0, Code::internal), HasSubstr("logit 1 is nan"));
  EXPECT_THAT(error_of({0, 1, kNan}, 1, Code::internal), HasSubstr("logit 2 is nan"));
  EXPECT_THAT(error_of({kNan}, 0, Code::internal), HasSubstr("logit 0 is nan"));
  EXPECT_THAT(error_of({0, kInf}, 1, Code::internal), HasSubstr("logit 1 is inf"));
  EXPECT_THAT(error_of({-kInf, -kInf}, 0, Code::internal), HasSubstr("all 2 logits are -inf"));
  EXPECT_THAT(error_of({}, 0, Code::internal), HasSubstr("there are 0 logits"));
  EXPECT_THAT(error_of({0}, -1, Code::invalid_argument), HasSubstr("temperature is -1.0"));
  EXPECT_THAT(error_of({0}, kNan, Code::invalid_argument), HasSubstr("temperature is nan"));
  EXPECT_THAT(error_of({0}, kInf, Code::invalid_argument), HasSubstr("temperature is inf"));
}

// Logits whose softmax is 0.4, 0.3, 0.2, 0.1 in another order.
const std::vector<float> kFour = {std::log(0.2F), std::log(0.4F), std::log(0.1F), std::log(0.3F)};

TEST(Sample, TopKKeepsTheLikeliest) {
  expect_distribution(kFour, {.temperature = 1, .top_k = 1}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .top_k = 2}, {0, 4.0 / 7, 0, 3.0 / 7});
  expect_distribution(kFour, {.temperature = 1, .top_k = 4}, {0.2, 0.4, 0.1, 0.3});
  expect_distribution(kFour, {.temperature = 1, .top_k = 1000}, {0.2, 0.4, 0.1, 0.3});
  expect_distribution({0, 0, 0, 0}, {.temperature = 1, .top_k = 2}, {0.5, 0.5, 0, 0});
}

TEST(Sample, TopPKeepsTheFewestThatReachIt) {
  expect_distribution(kFour, {.temperature = 1, .top_p = 1e-6F}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .top_p = 0.39F}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .top_p = 0.41F}, {0, 4.0 / 7, 0, 3.0 / 7});
  expect_distribution(kFour, {.temperature = 1, .top_p = 0.85F}, {2.0 / 9, 4.0 / 9, 0, 3.0 / 9});
  expect_distribution(kFour, {.temperature = 1, .top_p = 0.95F}, {0.2, 0.4, 0.1, 0.3});
}

TEST(Sample, MinPKeepsAShareOfTheLikeliest) {
  expect_distribution(kFour, {.temperature = 1, .min_p = 1}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .min_p = 0.7F}, {0, 4.0 / 7, 0, 3.0 / 7});
  expect_distribution(kFour, {.temperature = 1, .min_p = 0.3F}, {2.0 / 9, 4.0 / 9, 0, 3.0 / 9});
}

// Temperature comes first: at 0.5 the probabilities are 16, 9, 4, 1 of 30. top_p counts what top_k has left.
TEST(Sample, TheOrderOfSamplers) {
  expect_distribution(kFour, {.temperature = 0.5F, .top_p = 0.5F}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .top_k = 2, .top_p = 0.56F}, {0, 1, 0, 0});
  expect_distribution(kFour, {.temperature = 1, .top_k = 3, .top_p = 0.7F, .min_p = 0.76F}, {0, 1, 0, 0});
  for (const float top_p : {0.1F, 1.0F}) {
    EXPECT_EQ(*draw(kFour, SampleArgs{.temperature = 0, .top_k = 3, .top_p = top_p, .min_p = 0.5F}), 1);
  }
}

TEST(Sample, BodiesAgreeOnLargeVocabularies) {
  std::mt19937 random(3);
  for (const size_t vocab : {1, 17, 300, 5000}) {
    std::normal_distribution<float> normal(0, 4);
    std::vector<float> logits(vocab);
    for (float& logit : logits) logit = random() % 7 == 0 ? -kInf : std::round(normal(random) * 8) / 8;  // many ties
    logits[vocab / 2] = 3;
    for (const float temperature : {0.0F, 0.3F, 1.0F, 5.0F}) {
      for (const int64_t top_k : {0, 1, 5, 260, 4999}) {
        for (const float top_p : {0.01F, 0.5F, 0.999F, 1.0F}) {
          for (const float min_p : {0.0F, 0.1F}) {
            for (uint64_t step = 0; step < 3; ++step) {
              ASSERT_TRUE(
                  draw(logits, {.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = 9, .step = step}).ok());
            }
          }
        }
      }
    }
  }
}

TEST(Sample, RefusesBadOptions) {
  const std::vector<float> two = {0, 1};
  EXPECT_THAT(error_of(two, {.temperature = 1, .top_k = -1}, Code::invalid_argument), HasSubstr("top_k is -1"));
  EXPECT_THAT(error_of(two, {.temperature = 1, .top_p = 0}, Code::invalid_argument), HasSubstr("top_p is 0.0"));
  EXPECT_THAT(error_of(two, {.temperature = 1, .top_p = 1.5F}, Code::invalid_argument), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(error_of(two, {.temperature = 1, .top_p = kNan}, Code::invalid_argument), HasSubstr("top_p is nan"));
  EXPECT_THAT(error_of(two, {.temperature = 1, .min_p = -0.1F}, Code::invalid_argument), HasSubstr("min_p is -0.1"));
  EXPECT_THAT(error_of(two, {.temperature = 1, .min_p = kNan}, Code::invalid_argument), HasSubstr("min_p is nan"));
  EXPECT_THAT(error_of({0, kNan}, {.temperature = 1, .top_k = 1}, Code::internal), HasSubstr("logit 1 is nan"));
  EXPECT_THAT(error_of({kInf, 1}, {.temperature = 1, .top_p = 0.5F}, Code::internal), HasSubstr("logit 0 is inf"));
}

TEST(Top, HighestFirstThenLowestId) {
  std::vector<float> logits = {1, -0.0F, 3, 0.0F, 3, -kInf, 1e30F, -1e30F, 1e-40F};
  for (const ModelBodies& bodies : model_bodies()) {
    std::vector<TokenId> out;
    bodies.top({logits, 4, &out});
    EXPECT_EQ(out, (std::vector<TokenId>{6, 2, 4, 0})) << bodies.name;
    bodies.top({logits, 100, &out});
    EXPECT_EQ(out, (std::vector<TokenId>{6, 2, 4, 0, 8, 1, 3, 7, 5})) << bodies.name;
    bodies.top({logits, 0, &out});
    EXPECT_TRUE(out.empty());
    bodies.top({{}, 5, &out});
    EXPECT_TRUE(out.empty());
  }
  std::mt19937 random(5);
  logits.resize(3000);
  for (float& logit : logits) logit = static_cast<float>(static_cast<int>(random() % 200) - 100) / 7;
  for (const int64_t count : {1, 2, 63, 64, 1000, 2999, 3000}) {
    std::vector<TokenId> a, b;
    model_bodies().front().top({logits, count, &a});
    model_bodies().back().top({logits, count, &b});
    EXPECT_EQ(a, b) << count;
  }
}

std::vector<float> adjusted(std::vector<float> logits, AdjustArgs args) {
  args.logits = logits;
  adjust(args);
  return logits;
}

TEST(Adjust, ClosedForms) {
  const std::vector<float> logits = {2, -2, 0, 4, -kInf};
  const std::vector<TokenId> history = {0, 1, 0, 4, 0};
  EXPECT_EQ(adjusted(logits, {.history = history, .repeat_penalty = 2}), (std::vector<float>{1, -4, 0, 4, -kInf}));
  EXPECT_EQ(adjusted(logits, {.history = history, .frequency_penalty = 0.5F}), (std::vector<float>{0.5F, -2.5F, 0, 4, -kInf}));
  EXPECT_EQ(adjusted(logits, {.history = history, .presence_penalty = -1}), (std::vector<float>{3, -1, 0, 4, -kInf}));
  const std::vector<LogitBias> bias = {{3, -1}, {3, 0.5F}, {0, -kInf}, {4, 100}};
  EXPECT_EQ(adjusted(logits, {.bias = bias}), (std::vector<float>{-kInf, -2, 0, 3.5F, -kInf}));
  EXPECT_EQ(adjusted(logits, {.history = history, .repeat_penalty = 2, .bias = bias}), (std::vector<float>{-kInf, -4, 0, 3.5F, -kInf}));
}

TEST(Adjust, StaysFiniteAndShowsNan) {
  const std::vector<TokenId> history = {0, 1, 2};
  const std::vector<float> out = adjusted({3e38F, -3e38F, kNan}, {.history = history, .repeat_penalty = 0.1F, .presence_penalty = -50});
  EXPECT_EQ(out[0], std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isfinite(out[1]));
  EXPECT_TRUE(std::isnan(out[2]));
  EXPECT_EQ(adjusted({3e38F, -3e38F, 1}, {.history = history, .repeat_penalty = 10})[1], -std::numeric_limits<float>::max());
}

TEST(Adjust, KnowsWhetherItChangesAnything) {
  const std::vector<TokenId> history = {0};
  const std::vector<LogitBias> bias = {{0, 1}};
  EXPECT_FALSE(adjusts({.history = history}));
  EXPECT_FALSE(adjusts({.repeat_penalty = 2}));
  EXPECT_TRUE(adjusts({.history = history, .repeat_penalty = 2}));
  EXPECT_TRUE(adjusts({.bias = bias}));
}

TEST(LogProb, ClosedForms) {
  EXPECT_NEAR(log_prob(std::vector<float>(8, 3.0f), 5), -std::log(8.0), 1e-15);
  EXPECT_EQ(log_prob(std::vector<float>{4}, 0), 0);
  const std::vector<float> two = {0, 1};
  EXPECT_NEAR(log_prob(two, 0), -std::log1p(std::exp(1.0)), 1e-15);
  EXPECT_NEAR(log_prob(two, 1), -std::log1p(std::exp(-1.0)), 1e-15);
  EXPECT_NEAR(log_prob(std::vector<float>{1e30f, 1e30f}, 0), -std::log(2.0), 1e-15);
  EXPECT_EQ(log_prob(std::vector<float>{0, -kInf}, 1), -std::numeric_limits<double>::infinity());
}

TEST(LogProb, ProbabilitiesSumToOne) {
  std::vector<float> logits;
  for (int i = 0; i < 500; ++i) logits.push_back(static_cast<float>(std::sin(i * 0.7) * 20));
  double total = 0;
  for (TokenId i = 0; i < 500; ++i) total += std::exp(log_prob(logits, i));
  EXPECT_NEAR(total, 1, 1e-12);
}

TEST(LogProb, NanWhereThereIsNone) {
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{0, 1}, 2)));
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{0, 1}, -1)));
  EXPECT_TRUE(std::isnan(log_prob({}, 0)));
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{0, kNan}, 0)));
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{kNan, 0}, 1)));
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{0, kInf}, 0)));
  EXPECT_TRUE(std::isnan(log_prob(std::vector<float>{-kInf, -kInf}, 0)));
}

}  // namespace
}  // namespace bough
