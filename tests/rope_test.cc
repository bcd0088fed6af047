// RoPE: integer positions become angles in double; both layouts; rows and tiles agree; only relative positions matter.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "support/attention_case.h"

namespace bough {
namespace {

RopeTable table(RopeLayout layout, int d, int64_t positions) {
  return test::AttentionCase({.heads = 1, .kv_heads = 1, .d = d, .layout = layout}, {{.length = 1}}, 1).rope(positions);
}

std::vector<float> turn(const RopeTable& rope, const std::vector<float>& x, int64_t position) {
  std::vector<float> y(x.size());
  rope_row(x.data(), rope.cos_row(position), rope.sin_row(position), rope.params(), static_cast<int>(x.size()), y.data());
  return y;
}

TEST(RopeTest, TurnsAsTheFormulaSaysInBothLayouts) {
  for (const int d : {32, 64, 80, 96, 128}) {
    for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
      const RopeTable rope = table(layout, d, 1000);
      auto random = test::random_of(51, d, 0);
      const auto x = test::normal_floats(random, d);
      for (const int64_t position : {0, 1, 31, 32, 999}) {
        const auto exact = test::turned(x, 1.0, position, {.d = d, .layout = layout});
        auto in_place = x;
        rope_row(in_place.data(), rope.cos_row(position), rope.sin_row(position), rope.params(), d, in_place.data());
        const auto y = turn(rope, x, position);
        EXPECT_TRUE(test::same_bits(in_place, y));
        for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], exact[i], 1e-6) << "d " << d << " position " << position;
      }
      EXPECT_EQ(turn(rope, x, 0), x);
    }
  }
}

TEST(RopeTest, TheRestOfAHeadPassesThroughAndTheMagnitudeIsOfWhatTurns) {
  for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
    for (const int rotated : {0, 6, 16, 20, 80}) {
      const test::CaseShape shape{.heads = 1, .kv_heads = 1, .d = 80, .layout = layout, .rotated = rotated, .magnitude = 1.25};
      const RopeTable rope = test::AttentionCase(shape, {{.length = 1}}, 1).rope(100);
      auto random = test::random_of(53, rotated, 0);
      const auto x = test::normal_floats(random, 80);
      for (const int64_t position : {0, 77}) {
        const auto exact = test::turned(x, 1.0, position, shape);
        const auto y = turn(rope, x, position);
        for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], exact[i], 1e-6) << "rotated " << rotated << " position " << position;
        EXPECT_TRUE(test::same_bits(std::span(y).subspan(static_cast<size_t>(shape.rotated_dims())),
                                    std::span(x).subspan(static_cast<size_t>(shape.rotated_dims()))));
      }
    }
  }
}

TEST(RopeTest, NothingTurnsWhereNoElementDoes) {
  RopeTable rope(RopeParams{});
  rope.reserve(40);
  auto random = test::random_of(54, 0, 0);
  const auto x = test::normal_floats(random, 64);
  EXPECT_EQ(turn(rope, x, 39), x);
}

TEST(RopeTest, AnglesOfMillionsAreExactToFloat) {
  constexpr int64_t kFar = 3000000;
  RopeParams params{RopeLayout::halves, 2, {1.0}};
  RopeTable rope(params);
  rope.reserve(kFar + 1);
  for (const int64_t position : {int64_t{1000003}, int64_t{2999999}, kFar}) {
    EXPECT_EQ(*rope.cos_row(position), static_cast<float>(std::cos(static_cast<double>(position))));
    EXPECT_EQ(*rope.sin_row(position), static_cast<float>(std::sin(static_cast<double>(position))));
  }
}

TEST(RopeTest, TilesHoldTheRows) {
  const RopeTable rope = table(RopeLayout::halves, 80, 130);
  EXPECT_EQ(rope.positions(), 160);
  for (int64_t position = 0; position < rope.positions(); ++position) {
    for (int i = 0; i < rope.pairs(); ++i) {
      ASSERT_EQ(rope.cos_tile(position / 32)[i * 32 + position % 32], rope.cos_row(position)[i]);
      ASSERT_EQ(rope.sin_tile(position / 32)[i * 32 + position % 32], rope.sin_row(position)[i]);
    }
  }
}

TEST(RopeTest, GrowingKeepsWhatIsThere) {
  RopeTable grown = table(RopeLayout::interleaved, 64, 1);
  EXPECT_EQ(grown.positions(), 32);
  grown.reserve(33);
  grown.reserve(500);
  grown.reserve(40);  // never shrinks
  EXPECT_EQ(grown.positions(), 512);
  const RopeTable whole = table(RopeLayout::interleaved, 64, 500);
  for (int64_t position = 0; position < 512; ++position) {
    ASSERT_TRUE(test::same_bits({grown.cos_row(position), 64}, {whole.cos_row(position), 64})) << position;
  }
  for (int64_t tile = 0; tile < 16; ++tile)
    ASSERT_TRUE(test::same_bits({grown.cos_tile(tile), 64 * 32}, {whole.cos_tile(tile), 64 * 32})) << tile;
}

TEST(RopeTest, OnlyTheDistanceMatters) {
  for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
    const RopeTable rope = table(layout, 64, 2000);
    auto random = test::random_of(52, 0, 0);
    const auto q = test::normal_floats(random, 64);
    const auto k = test::normal_floats(random, 64);
    const auto dot = [&](int64_t at, int64_t of) {
      const auto a = turn(rope, q, at);
      const auto b = turn(rope, k, of);
      return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    };
    EXPECT_NEAR(dot(1900, 1893), dot(7, 0), 1e-4);
    EXPECT_NEAR(dot(1024, 24), dot(1000, 0), 1e-4);
    EXPECT_GT(std::abs(dot(1000, 0) - dot(7, 0)), 1e-2);
  }
}

}  // namespace
}  // namespace bough
