// PagedAttention::attend: the scalar oracle over the same lists, textbook attention where all is seen, the same bits in every company.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

class PagedAttend : public testing::TestWithParam<PagedSpec> {};

TEST_P(PagedAttend, EqualsTheOracleOverTheSameLists) { expect_oracles_prefill(PagedCase(GetParam())); }

// The invariant: up to sinks + window + k tokens, and in a sliding window, nothing but plain attention.
TEST_P(PagedAttend, WhatIsSeenWholeIsTextbookAttention) {
  const PagedCase c(GetParam());
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  const std::vector<Part> parts = c.parts();
  const Output got = run.prefill(parts).out;
  int64_t row = 0;
  for (const Part& part : parts) {
    if (part.rows > 0 && oracle.sees_all(part.length)) {
      expect_near(c, rows_of(got, c.shape(), row, part.rows), textbook(c, part), textbook_tolerance(c),
                  "text of " + std::to_string(part.length));
    }
    row += part.rows;
  }
}

// o and lse of a row with one more logit, which has no value.
void add_logit(float logit, std::span<float> o, float& lse) {
  const double top = std::max(double{logit}, double{lse});
  const double sum = top + std::log(std::exp(logit - top) + std::exp(lse - top));
  for (float& x : o) x = static_cast<float>(x * std::exp(lse - sum));
  lse = static_cast<float>(sum);
}

TEST_P(PagedAttend, SinkLogitsTakeTheirShare) {
  const PagedCase c(GetParam());
  BOUGH_MAKE_RUN(run, c);
  const DeviceCall call(c, c.parts());
  run.prune(call);
  run.attend(call, call.lse(), nullptr);
  Output want = run.read(call);
  call.clear_output();
  run.attend(call, call.lse(), call.sink_logits());
  const Output got = run.read(call);
  const std::vector<float> logits = c.sink_logits();
  const auto d = static_cast<size_t>(c.shape().head_dim);
  for (size_t row = 0; row < want.lse.size(); ++row) {
    add_logit(logits[row % logits.size()], std::span(want.o).subspan(row * d, d), want.lse[row]);
  }
  expect_near(c, got, want, output_tolerance(c), "with sink logits");
}

TEST(PagedAttendDetails, WithoutLseTheOutputIsTheSame) {
  const PagedCase c(samples().front());
  BOUGH_MAKE_RUN(run, c);
  const DeviceCall call(c, c.parts());
  run.prune(call);
  run.attend(call, call.lse(), nullptr);
  const Output with = run.read(call);
  call.clear_output();
  run.attend(call, nullptr, nullptr);
  const Output without = run.read(call);
  EXPECT_TRUE(same_bits({with.o, {}}, {without.o, {}}));
  for (const float lse : without.lse) ASSERT_TRUE(std::isnan(lse)) << "lse was written";
}

class PagedAttendCompany : public testing::TestWithParam<PagedSpec> {};

TEST_P(PagedAttendCompany, BitsDependOnTheTextAlone) {
  const PagedCase c(GetParam());
  BOUGH_MAKE_RUN(run, c);
  const std::vector<Part> parts = c.parts();
  const Output together = run.prefill(parts).out;
  EXPECT_TRUE(same_bits(run.prefill(parts).out, together)) << "a second run";
  EXPECT_TRUE(same_bits(run.prefill(parts, 7).out, together)) << "other pages";
  const std::vector<Part> reversed(parts.rbegin(), parts.rend());
  const Output backwards = run.prefill(reversed).out;
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t rows = parts[i].rows;
    const Output own = rows_of(together, c.shape(), row, rows);
    row += rows;
    if (rows == 0) continue;
    EXPECT_TRUE(same_bits(rows_of(backwards, c.shape(), rows_of(parts) - row, rows), own)) << "text " << i << " among other neighbours";
    EXPECT_TRUE(same_bits(run.prefill({parts[i]}).out, own)) << "text " << i << " alone";
  }
}

// An upper bound of the lengths that is far too high changes nothing.
TEST_P(PagedAttendCompany, TheBoundOfLengthsChangesNoBit) {
  const PagedCase c(GetParam(), 2000);
  BOUGH_MAKE_RUN(run, c);
  DeviceCall call(c, c.parts());
  run.prune(call);
  run.attend(call, call.lse(), nullptr);
  const std::vector<BlockChoice> blocks = run.selection();
  const Output exact = run.read(call);
  call.longest = c.limits().length;
  call.clear_output();
  run.prune(call);
  run.attend(call, call.lse(), nullptr);
  EXPECT_TRUE(same_bits(run.read(call), exact));
  EXPECT_EQ(run.selection(), blocks);
}

INSTANTIATE_TEST_SUITE_P(Grid, PagedAttend, testing::ValuesIn(grid()), spec_name);
INSTANTIATE_TEST_SUITE_P(Special, PagedAttend, testing::ValuesIn(specials()), spec_name);
INSTANTIATE_TEST_SUITE_P(Pieces, PagedAttend, testing::ValuesIn(pieces()), spec_name);
INSTANTIATE_TEST_SUITE_P(Tree, PagedAttend, testing::ValuesIn(trees()), spec_name);
INSTANTIATE_TEST_SUITE_P(Moving, PagedAttend, testing::ValuesIn(moving_positions()), spec_name);
INSTANTIATE_TEST_SUITE_P(Sample, PagedAttendCompany, testing::ValuesIn(samples()), spec_name);

}  // namespace
}  // namespace bough::test
