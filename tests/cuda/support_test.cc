// What the tests of PagedAttention rest on: conversions of elements, and which lists the margins of scores explain.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/elements.h"
#include "cuda/paged_grid.h"
#include "cuda/search_margins.h"

namespace bough::test {
namespace {

TEST(Elements, EveryCodeComesBack) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const float x = from_f16(static_cast<uint16_t>(code));
    if (std::isnan(x)) continue;
    ASSERT_EQ(to_f16(x), code);
  }
  for (uint32_t code = 0; code < 0x100; ++code) {
    const float x = from_e4m3(static_cast<uint8_t>(code));
    if (std::isnan(x)) continue;
    ASSERT_EQ(to_e4m3(x), code);
  }
}

TEST(Elements, ValuesAreTheFormats) {
  EXPECT_EQ(from_f16(0x3c00), 1.0F);
  EXPECT_EQ(from_f16(0x7bff), 65504.0F);
  EXPECT_EQ(from_f16(0x8001), -0x1p-24F);
  EXPECT_TRUE(std::isnan(from_f16(0xffff)));
  EXPECT_EQ(from_e4m3(0x38), 1.0F);
  EXPECT_EQ(from_e4m3(0x7e), 448.0F);
  EXPECT_EQ(from_e4m3(0x81), -0x1p-9F);
  EXPECT_TRUE(std::isnan(from_e4m3(0xff)));
}

TEST(Elements, RoundToNearestAndTiesToEven) {
  EXPECT_EQ(to_f16(1.0F + 0x1p-11F), 0x3c00);
  EXPECT_EQ(to_f16(1.0F + 0x3p-11F), 0x3c02);
  EXPECT_EQ(to_f16(0x1.8p-24F), 2);
  EXPECT_EQ(to_f16(2047.9F), 0x6800);
  EXPECT_EQ(to_f16(65519.0F), 0x7bff);
  EXPECT_EQ(to_f16(65520.0F), 0x7c00);
  EXPECT_EQ(to_e4m3(17.0F), to_e4m3(16.0F));
  EXPECT_EQ(to_e4m3(19.0F), to_e4m3(20.0F));
  EXPECT_EQ(to_e4m3(-1000.0F), 0xfe);
  EXPECT_EQ(to_e4m3(0x1p-10F), 0);
  EXPECT_EQ(static_cast<int8_t>(to_i8(-200.0F)), -127);
  EXPECT_EQ(to_i8(2.5F), 2);
}

class Margins : public testing::TestWithParam<PagedSpec> {};

// The oracle's own lists are possible, and hold what has to be in every list; most of a list has to be.
TEST_P(Margins, HoldTheOraclesLists) {
  PagedSpec spec = GetParam();
  for (Text& text : spec.texts) text.rows = std::min<int64_t>(text.rows, 2);
  const PagedCase c(std::move(spec));
  const Oracle oracle(c);
  const std::vector<Part> parts = c.parts();
  const Batch batch = oracle.batch(parts);
  const std::vector<float> q = c.queries(parts);
  const std::vector<BlockChoice> choices = oracle.prune(batch, q);
  size_t starts = 0, uncertain = 0;
  for (size_t b = 0; b < choices.size(); ++b) {
    if (choices[b].count == 0) continue;
    const SearchMargins margins(oracle, batch, b, q);
    for (size_t h = 0; h < choices[b].starts.size(); ++h) {
      const std::vector<int32_t>& list = choices[b].starts[h];
      size_t possible = 0;
      for (const Candidate& candidate : margins.selected(static_cast<int>(h), choices[b].w0)) {
        const bool selected = std::binary_search(list.begin(), list.end(), candidate.start);
        EXPECT_TRUE(selected || !candidate.certain) << candidate.start;
        possible += selected ? 1 : 0;
        uncertain += selected && !candidate.certain ? 1 : 0;
      }
      EXPECT_EQ(possible, list.size()) << "a selected chunk is said to be impossible";
      starts += list.size();
    }
  }
  EXPECT_LE(uncertain, starts / 2);
}

INSTANTIATE_TEST_SUITE_P(Special, Margins, testing::ValuesIn(specials()), spec_name);
INSTANTIATE_TEST_SUITE_P(Pieces, Margins, testing::ValuesIn(pieces()), spec_name);

}  // namespace
}  // namespace bough::test
