// PagedAttention::prune: blocks, windows and lists against the scalar oracle, and the same lists in every company.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"
#include "cuda/search_margins.h"

namespace bough::test {
namespace {

class PagedPrune : public testing::TestWithParam<PagedSpec> {};

// The same blocks, windows and counts. A list may differ where a score lies so close to a cut that rounding decides, which is rare.
TEST_P(PagedPrune, EqualsTheOracle) {
  const PagedCase c(GetParam());
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  const std::vector<Part> parts = c.parts();
  const Batch batch = oracle.batch(parts);
  const std::vector<float> q = c.queries(parts);
  const DeviceCall call(c, parts);
  run.prune(call);
  run.read(call);
  const std::vector<BlockChoice> got = run.selection(), want = oracle.prune(batch, q);
  ASSERT_TRUE(well_formed(oracle, batch, got, want));
  const Difference difference = compare(oracle, batch, q, got, want);
  RecordProperty("lists", static_cast<int>(difference.lists));
  RecordProperty("differing", static_cast<int>(difference.differing));
  EXPECT_EQ(difference.unexplained, 0) << difference.first;
  // An oracle that rounds as the device does hardly ever differs; f32 against f16 differs in one list of fifty or so, against bf16 in one
  // of five.
  const double allowed = oracle.exact() ? 0.05 : c.shape().q_type == ElementType::f16 ? 0.15 : 0.4;
  EXPECT_LE(static_cast<double>(difference.differing), 1 + allowed * static_cast<double>(difference.lists)) << "of " << difference.lists;
}

// A comparison of texts that are seen whole would say nothing about searches.
TEST(PagedPruneCases, MostGridCasesAreSearched) {
  int searched = 0, cases = 0;
  for (const PagedSpec& spec : grid()) {
    const AttentionPlan& plan = spec.plan;
    const bool search = spec.shape.sliding_window == 0 && std::any_of(spec.texts.begin(), spec.texts.end(), [&](const Text& text) {
                          return text.rows > 0 && text.length > plan.sinks + plan.window + plan.k;
                        });
    cases += 1;
    searched += search ? 1 : 0;
  }
  EXPECT_GE(4 * searched, 3 * cases);
}

// Blocks of one part of a batch, as they are in a batch of that part alone.
std::vector<BlockChoice> of_part(const std::vector<BlockChoice>& all, const std::vector<Part>& parts, size_t part) {
  const auto row = static_cast<int32_t>(rows_of(std::span(parts).first(part)));
  std::vector<BlockChoice> own;
  for (BlockChoice block : all) {
    if (block.sequence != static_cast<int32_t>(part)) continue;
    block.sequence = 0;
    block.row -= row;
    own.push_back(std::move(block));
  }
  return own;
}

class PagedPruneCompany : public testing::TestWithParam<PagedSpec> {};

// Twice, alone, among other neighbours, in other pages: the lists are equal, not nearly so.
TEST_P(PagedPruneCompany, ListsDependOnTheTextAlone) {
  const PagedCase c(GetParam());
  BOUGH_MAKE_RUN(run, c);
  const std::vector<Part> parts = c.parts();
  const std::vector<BlockChoice> together = run.prefill(parts).blocks;
  EXPECT_EQ(run.prefill(parts).blocks, together) << "a second run";
  EXPECT_EQ(run.prefill(parts, 7).blocks, together) << "other pages";
  const std::vector<Part> reversed(parts.rbegin(), parts.rend());
  const std::vector<BlockChoice> backwards = run.prefill(reversed).blocks;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::vector<BlockChoice> own = of_part(together, parts, i);
    EXPECT_EQ(of_part(backwards, reversed, parts.size() - 1 - i), own) << "text " << i << " among other neighbours";
    if (parts[i].rows > 0) {
      EXPECT_EQ(run.prefill({parts[i]}).blocks, own) << "text " << i << " alone";
    }
  }
}

// Blocks are cut at absolute positions, so that rows read in two calls see what they see in one.
TEST_P(PagedPruneCompany, CutsAtBlocksChangeNoList) {
  PagedSpec spec = GetParam();
  spec.texts = {{1100, 140}};
  spec.plan.tail = 0;
  const PagedCase c(spec);
  BOUGH_MAKE_RUN(run, c);
  std::vector<BlockChoice> whole = run.prefill({{0, 1100, 140}}).blocks;
  std::vector<BlockChoice> pieces = run.prefill({{0, 1024, 64}}).blocks;
  for (BlockChoice block : run.prefill({{0, 1100, 76}}).blocks) {
    block.row += 64;
    pieces.push_back(std::move(block));
  }
  EXPECT_EQ(pieces, whole);
}

INSTANTIATE_TEST_SUITE_P(Grid, PagedPrune, testing::ValuesIn(grid()), spec_name);
INSTANTIATE_TEST_SUITE_P(Special, PagedPrune, testing::ValuesIn(specials()), spec_name);
INSTANTIATE_TEST_SUITE_P(Pieces, PagedPrune, testing::ValuesIn(pieces()), spec_name);
INSTANTIATE_TEST_SUITE_P(Tree, PagedPrune, testing::ValuesIn(trees()), spec_name);
INSTANTIATE_TEST_SUITE_P(Sample, PagedPruneCompany, testing::ValuesIn(samples()), spec_name);

}  // namespace
}  // namespace bough::test
