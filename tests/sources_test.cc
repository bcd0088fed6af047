// Sources: the tally of attention mass, passages from it, and what sessions promise about them.
#include "engine/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/tally.h"
#include "support/attention_case.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::session_of;
using test::tiny_text;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr HeadShape kHeads{.heads = 2, .kv_heads = 2, .head_dim = 64, .scale = 1};

// Sinks of 16 tokens, chunks of `chunk` at `starts`, the last tokens from w0 to r1.
Context context_over(const std::vector<int32_t>& starts, int chunk, int64_t w0, int64_t r1) {
  return {.sinks = 16, .start = starts.data(), .selected = static_cast<int64_t>(starts.size()) * chunk, .chunk = chunk, .w0 = w0, .r1 = r1};
}

TEST(SourceTally, CubesOfWhatEachHeadGivesAUnit) {
  const std::vector<int32_t> starts = {32, 48};
  const Context context = context_over(starts, 8, 64, 76);
  ASSERT_EQ(context.size(), 44);
  SourceTally tally(72, 74);
  // Groups of 8 ranks: units 0, 1, then 4, 6, then 8 and, cut by the context's end, 9, which is not of the text before the rows.
  const std::vector<float> mass = {0.5F, 0, 0.25F, 0, 0.125F, 0.125F, 0, 0, 0.5F, 0.5F, 0, 0};
  tally.add(72, kHeads, {&context, 1}, 8, mass.data());
  tally.add(73, kHeads, {&context, 1}, 8, mass.data());
  EXPECT_THAT(tally.scores(), ElementsAre(0.125, 0, 0, 0, 0.015625 + 0.125, 0, 0.125, 0, 0.001953125)) << "the mean of two equal rows";
  const std::vector<float> answer = {0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0};
  for (int64_t position = 74; position < 84; ++position) tally.add(position, kHeads, {&context, 1}, 8, answer.data());
  EXPECT_THAT(tally.scores(), ElementsAre(0.125, 0, 0, 0, 0.140625, 0, 2.125, 0, 0.001953125)) << "a long answer counts as much as a row";
}

TEST(SourceTally, SmallGroupsAddUpAndLargeOnesAreShared) {
  const std::vector<int32_t> starts = {24, 28, 32, 46};
  const Context small = context_over(starts, 2, 64, 64);
  ASSERT_EQ(small.size(), 24);
  SourceTally two(64, 64);
  std::vector<float> mass(2 * 12);
  mass[8] = mass[9] = 0.25F;  // tokens 24, 25 and 28, 29: one unit
  mass[10] = 0.5F;            // 32, 33
  two.add(64, kHeads, {&small, 1}, 2, mass.data());
  EXPECT_THAT(two.scores(), ElementsAre(0, 0, 0, 0.125, 0.125, 0, 0, 0));

  const Context dense{.r1 = 40};
  SourceTally wide(40, 40);
  const std::vector<float> shares = {1, 0.5F, 0, 0};
  wide.add(40, kHeads, {&dense, 1}, 32, shares.data());
  EXPECT_THAT(wide.scores(), ElementsAre(0.015625, 0.015625, 0.015625, 0.015625, 0.125)) << "the last group has one unit";
}

TEST(SourceTally, EachListHeadHasItsOwnContext) {
  const std::vector<int32_t> left = {16}, right = {40};
  const std::vector<Context> contexts = {context_over(left, 8, 64, 64), context_over(right, 8, 64, 64)};
  SourceTally tally(64, 64);
  const std::vector<float> mass = {0, 0, 1, 0, 0, 0.5F};
  tally.add(64, kHeads, contexts, 8, mass.data());
  EXPECT_THAT(tally.scores(), ElementsAre(0, 0, 1, 0, 0, 0.125, 0, 0));
}

std::vector<std::string> places(const std::vector<double>& scores, const SourceOptions& options) {
  std::vector<std::string> out;
  for (const Source& s : find_sources(scores, options)) {
    out.push_back(std::to_string(s.first_token) + "+" + std::to_string(s.tokens) + ":" + std::to_string(static_cast<int>(s.weight * 100)));
  }
  return out;
}

TEST(FindSources, WindowsAroundWhatStandsOut) {
  std::vector<double> scores(40);
  scores[0] = 1000;  // where heads rest
  scores[10] = 8;
  scores[11] = 16;
  scores[20] = 4;
  scores[22] = 2;
  scores[23] = 0.05;  // next to nothing
  scores[35] = 1.95;
  const SourceOptions all{.first_token = 0, .end_token = 320, .count = 3};
  EXPECT_THAT(places(scores, all), ElementsAre("80+16:75", "160+24:18", "280+8:6"));
  EXPECT_THAT(places(scores, {.first_token = 100, .end_token = 250, .count = 9}), ElementsAre("160+24:100")) << "only whole units";
  EXPECT_THAT(places(scores, {.first_token = 0, .end_token = 320, .count = 1}), ElementsAre("80+16:75"));
}

TEST(FindSources, NeighboursJoinUpTo64TokensAndNothingOverlaps) {
  std::vector<double> scores(20, 0);
  for (size_t u = 3; u < 15; ++u) scores[u] = 1;
  const auto found = find_sources(scores, {.first_token = 0, .end_token = 160, .count = 5});
  std::vector<int> owner(160, -1);
  double weight = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    weight += found[i].weight;
    EXPECT_LE(found[i].tokens, 64);
    for (int64_t t = found[i].first_token; t < found[i].first_token + found[i].tokens; ++t) {
      EXPECT_EQ(owner[static_cast<size_t>(t)], -1) << "token " << t;
      owner[static_cast<size_t>(t)] = static_cast<int>(i);
    }
  }
  EXPECT_EQ(found.size(), 2U);
  EXPECT_NEAR(weight, 1, 1e-12);
}

TEST(FindSources, EdgesOfTheTextBelongToWhatTouchesThem) {
  std::vector<double> scores(10, 0);
  scores[2] = 2;
  scores[8] = 1;
  EXPECT_THAT(places(scores, {.first_token = 13, .end_token = 77, .count = 3}), ElementsAre("13+11:66", "64+13:33"));
  EXPECT_THAT(places(scores, {.first_token = 3, .end_token = 7, .count = 3}), ElementsAre("3+4:100")) << "no whole unit";
  EXPECT_TRUE(places(scores, {.first_token = 7, .end_token = 7, .count = 3}).empty());
  EXPECT_TRUE(places(std::vector<double>(10), {.first_token = 0, .end_token = 80, .count = 3}).empty()) << "nobody looked";
  EXPECT_TRUE(places({}, {.first_token = 0, .end_token = 0, .count = 3}).empty());
}

class SessionSources : public testing::Test {
 protected:
  SessionSources() : file_(test::peaked_model()) {}

  // Reads 900 tokens and a question of 20, decodes 10.
  std::unique_ptr<Session> asked(Engine& engine, bool sources, int64_t text = 900) {
    auto s = session_of(engine);
    EXPECT_TRUE(s->append(tiny_text(text)).ok());
    EXPECT_TRUE(s->append(tiny_text(20, 6), {.will_sample = true, .sources = sources}).ok());
    for (const TokenId token : tiny_text(10, 7)) EXPECT_TRUE(s->decode(token).ok());
    return s;
  }

  static void expect_equal(const std::vector<Source>& a, const std::vector<Source>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].first_token, b[i].first_token);
      EXPECT_EQ(a[i].tokens, b[i].tokens);
      EXPECT_EQ(a[i].weight, b[i].weight);
    }
  }

  test::TinyFile file_;
};

TEST_F(SessionSources, WatchingChangesNoBitAndThreadsNone) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const auto engine = file_.engine(test::kSmallPlan, type, 1);
    const auto plain = asked(*engine, false);
    const auto watched = asked(*engine, true);
    EXPECT_TRUE(test::same_bits(plain->logits(), watched->logits()));
    const auto sources = watched->sources({.count = 10});
    ASSERT_TRUE(sources.ok()) << sources.status().message();
    ASSERT_FALSE(sources->empty());
    double weight = 0;
    for (const Source& s : *sources) {
      EXPECT_GE(s.first_token, 0);
      EXPECT_LE(s.first_token + s.tokens, 900);
      weight += s.weight;
    }
    EXPECT_GT(weight, 0);
    EXPECT_LE(weight, 1 + 1e-9);
    const auto three = file_.engine(test::kSmallPlan, type, 3);
    expect_equal(*asked(*three, true)->sources({.count = 10}), *sources);
  }
}

TEST_F(SessionSources, PrunedEqualsDenseWhileEverythingFits) {
  const auto pruned = file_.engine(test::kSmallPlan);
  const auto dense = file_.engine("dense");
  expect_equal(*asked(*pruned, true, 150)->sources({.count = 10}), *asked(*dense, true, 150)->sources({.count = 10}));
}

TEST_F(SessionSources, AreThoseOfTheLastAppendThatAskedForThem) {
  const auto engine = file_.engine(test::kSmallPlan);
  auto s = asked(*engine, true);
  EXPECT_TRUE(s->sources().ok());
  EXPECT_THAT(s->sources({.count = 0}).status().message(), HasSubstr("count is 0, it must be between 1 and 1000"));
  EXPECT_THAT(s->sources({.first_token = 5, .end_token = 4}).status().message(), HasSubstr("tokens 5 to 4"));
  EXPECT_TRUE(s->sources({.first_token = 2000})->empty());
  ASSERT_TRUE(s->rollback(910).ok());
  EXPECT_EQ(s->sources().status().code(), Code::invalid_argument);
  ASSERT_TRUE(s->append(tiny_text(5, 8), {.will_sample = true}).ok());
  EXPECT_FALSE(s->sources().ok());
}

}  // namespace
}  // namespace bough
