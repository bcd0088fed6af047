// sample and log_prob against closed forms.
#include "steps/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace bough {
namespace {

using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Result<TokenId> draw(const std::vector<float>& logits, float temperature, uint64_t seed = 0, uint64_t step = 0) {
  return sample(
      {.logits = logits.data(), .vocab = static_cast<int64_t>(logits.size()), .temperature = temperature, .seed = seed, .step = step});
}

std::string error_of(const std::vector<float>& logits, float temperature, Code code) {
  const auto result = draw(logits, temperature);
  EXPECT_EQ(result.status().code(), code);
  return result.status().message();
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
