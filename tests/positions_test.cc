// Positions of the final attention: the literal table, and every body against textbook attention at these positions.
#include "steps/positions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "steps/convert.h"
#include "support/attention_case.h"
#include "support/conversation.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;

// S = 2, two chunks of 2 selected, W = 4, a block of the rows 21 and 22: w0 = 18.
const std::vector<int32_t> kChunks = {6, 12};
Context context_of_table() { return {2, kChunks.data(), 4, 2, 18, 23}; }

std::vector<int64_t> keys(const ContextPositions& positions, const Context& context) {
  std::vector<int64_t> all;
  for (int64_t rank = 0; rank < context.size(); ++rank) all.push_back(positions.key(rank));
  return all;
}

// Keys 0 1 | 6 7 12 13 | 18 ... 22. Least positions: streaming 18 - 6 = 12, infllm 17.
TEST(Positions, LiteralTable) {
  const Context context = context_of_table();
  const auto expect = [&](Positions kind, const std::vector<int64_t>& want, int64_t query) {
    const ContextPositions positions({kind, 4, 16}, context, 21);
    EXPECT_EQ(keys(positions, context), want) << static_cast<int>(kind);
    EXPECT_EQ(positions.query(21), query) << static_cast<int>(kind);
    EXPECT_EQ(positions.query(22), query + 1) << static_cast<int>(kind);
  };
  expect(Positions::rank, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 9);
  expect(Positions::streaming, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 9);
  expect(Positions::infllm, {0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5}, 4);
  expect(Positions::true_positions, {0, 1, 6, 7, 12, 13, 18, 19, 20, 21, 22}, 21);
}

// A window that begins before r0 + 1 - W, as between refreshes: its first keys share positions with the selected.
TEST(Positions, TheSelectedFollowTheBlockWhileTheWindowStands) {
  const Context context = context_of_table();
  const ContextPositions streaming({Positions::streaming, 4, 16}, context, 22);
  EXPECT_EQ(keys(streaming, context), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9}));
  EXPECT_EQ(streaming.query(22), 9);
  const ContextPositions infllm({Positions::infllm, 4, 16}, context, 22);
  EXPECT_EQ(keys(infllm, context), (std::vector<int64_t>{0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}));
  // Nothing selected and r0 + 1 - W below S: the sinks meet at 0.
  const Context early{8, nullptr, 0, 1, 8, 13};
  EXPECT_EQ(keys(ContextPositions({Positions::streaming, 8, 16}, early, 9), early),
            (std::vector<int64_t>{0, 0, 0, 0, 0, 0, 0, 1, 8, 9, 10, 11, 12}));
}

TEST(Positions, DynamicExtendBlendsTheCosinesOfTwoPositions) {
  const Context context = context_of_table();
  RopeTable rope(RopeParams{RopeLayout::halves, 2, {0.1}});
  rope.reserve(64);
  // Lt = 16: base = 23 - 16 = 7; f(i) = 17 + (i - 17) * 12 / 17 before 19, floored at 7; the query stays where it is.
  const ContextPositions positions({Positions::dynamic_extend, 4, 16}, context, 21);
  const std::vector<int64_t> near = {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22};
  const std::vector<int64_t> far = {7, 7, 10, 10, 14, 15, 17, 19, 20, 21, 22};
  for (size_t rank = 0; rank < near.size(); ++rank) {
    float cos = 0, sin = 0;
    positions.angles(rope, static_cast<int64_t>(rank), &cos, &sin);
    const double a = 0.1 * static_cast<double>(near[rank] - 7), b = 0.1 * static_cast<double>(far[rank] - 7);
    EXPECT_NEAR(cos, 0.75 * std::cos(a) + 0.25 * std::cos(b), 1e-6) << rank;
    EXPECT_NEAR(sin, 0.75 * std::sin(a) + 0.25 * std::sin(b), 1e-6) << rank;
  }
  EXPECT_EQ(positions.query(22), 15);
}

TEST(Positions, AContextThatHoldsAllIsNumberedByRank) {
  const Context context{0, nullptr, 0, 8, 0, 40};
  for (const Positions kind : {Positions::streaming, Positions::infllm, Positions::dynamic_extend, Positions::true_positions}) {
    const ContextPositions positions({kind, 8, 16}, context, 30);
    EXPECT_TRUE(positions.by_rank());
    EXPECT_EQ(positions.query(35), 35);
  }
}

class PositionBodies : public test::BodyTest {
 protected:
  double tolerance() const { return test::attend_tolerance(GetParam()); }

  // Attention of head `head` of row `row` in double over keys turned by what ContextPositions says.
  std::vector<float> textbook(const AttentionCase& c, const Context& context, const ContextPositions& positions, const RopeTable& rope,
                              std::span<const float> q, int64_t p) const {
    const int d = c.shape().d;
    const auto turn = [&](std::vector<float> x, const float* cos, const float* sin, float scale) {
      for (float& e : x) e *= scale;
      rope_row(x.data(), cos, sin, rope.params(), d, x.data());
      for (float& e : x) e = rounded(e, c.shape().type);
      return x;
    };
    const int64_t at = positions.query(p);
    const auto query = turn({q.begin(), q.end()}, rope.cos_row(at), rope.sin_row(at), c.shape().head_shape().scale);
    std::vector<double> weight;
    std::vector<double> o(static_cast<size_t>(d));
    double sum = 0;
    for (int64_t rank = 0; context.token(rank) <= p; ++rank) {
      std::vector<float> cos(static_cast<size_t>(rope.pairs())), sin(cos.size());
      positions.angles(rope, rank, cos.data(), sin.data());
      const auto key = turn(c.key(0, context.token(rank), 0), cos.data(), sin.data(), 1.0F);
      const double w = std::exp(std::inner_product(key.begin(), key.end(), query.begin(), 0.0));
      const auto value = c.value(0, context.token(rank), 0);
      for (size_t i = 0; i < o.size(); ++i) o[i] += w * value[i];
      sum += w;
      if (rank + 1 == context.size()) break;
    }
    std::vector<float> result;
    for (const double x : o) result.push_back(static_cast<float>(x / sum));
    return result;
  }
};

TEST_P(PositionBodies, AttendAndAttendCachedFollowThem) {
  const CaseShape shape = {.type = GetParam().type, .heads = 1, .kv_heads = 1};
  for (const Positions kind : {Positions::streaming, Positions::infllm, Positions::dynamic_extend, Positions::true_positions}) {
    const PositionRule rule{kind, 100, 256};
    for (const int64_t first : {576, 599}) {  // a block of prefill, a decode row
      const AttentionCase c(shape, {{.length = 600, .first_row = first, .decode = first == 599}}, 91);
      const test::Input input = c.input();
      const test::Lists lists = test::random_lists(input.batch, {.sinks = 64, .window = 100, .chunk = 4, .most = 9}, 3);
      const RopeTable rope = c.rope(700);
      const Context context = context_of(lists.view(), input.batch.blocks[0], 0, 0);
      const ContextPositions positions(rule, context, first);
      std::vector<float> o(input.q.size());
      if (first == 599) {
        WorkingSet set;
        ASSERT_TRUE(body().working_set_reserve(shape.kv(), context.size(), set));
        body().working_set_build({&input.batch.sequences[0], shape.kv(), shape.layer, &rope, &context, 1, 0, rule, &set});
        const WorkingSet* sets = &set;
        body().attend_cached({&input.batch, shape.kv(), shape.head_shape(), input.q.data(), &sets, &rope, 0, o.data()});
      } else {
        body().attend(
            {&input.batch, 0, shape.kv(), shape.head_shape(), shape.layer, input.q.data(), lists.view(), &rope, 0, rule, o.data()});
      }
      for (int64_t p = first; p < 600; p += 7) {
        const auto row = static_cast<size_t>((p - first) * shape.d);
        const auto want = textbook(c, context, positions, rope, std::span(input.q).subspan(row, 64), p);
        EXPECT_LE(test::relative_error(std::span(o).subspan(row, 64), want), tolerance()) << static_cast<int>(kind) << " row " << p;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, PositionBodies, testing::ValuesIn(test::body_cases()), test::body_case_name);

// Through the layer loop: decoding equals one-row appends at every step of an interval of one, and every mode is another one.
TEST(PositionsOfLayers, DecodingEqualsReading) {
  std::vector<std::vector<float>> seen;
  for (const char* name : {"rank", "infllm", "dynamic-extend", "true"}) {
    std::string text = test::kSmallPlan;
    text.replace(text.find("[4,2]"), 5, "[1,1]");
    const Result<AttentionPlan> plan = parse_plan(text.insert(1, std::string(R"("positions":")") + name + "\","));
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    test::TinyForward cached(test::peaked_model(), *plan, DType::f32), plain(test::peaked_model(), *plan, DType::f32);
    test::Conversation a(cached, 700), b(plain, 700);
    for (int step = 0; step < 6; ++step) {
      seen.push_back(a.decode());
      EXPECT_LE(test::relative_error(seen.back(), b.append_one()), 1e-5) << name << ", step " << step;
      if (step > 0) seen.pop_back();
    }
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_GT(test::relative_error(seen[i], seen[j]), 1e-4) << i << " and " << j;
  }
}

}  // namespace
}  // namespace bough
