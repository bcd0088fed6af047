// refresh: which stages run at a decode step.
#include <gtest/gtest.h>

#include <vector>

#include "attention/refresh.h"

namespace bough {
namespace {

std::vector<int> stages(const std::vector<int>& intervals, int64_t steps) {
  std::vector<int> first;
  for (int64_t counter = 0; counter < steps; ++counter) first.push_back(first_refreshed_stage(intervals, counter));
  return first;
}

TEST(Refresh, ThreeStages) {
  const std::vector<int> expected = {0, 3, 3, 3, 3, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3, 1, 3, 3, 3, 3, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3,  //
                                     0, 3, 3, 3, 3, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3, 1, 3, 3, 3, 3, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3, 0};
  EXPECT_EQ(stages({32, 16, 8}, 65), expected);
}

TEST(Refresh, UnevenIntervals) { EXPECT_EQ(stages({12, 4, 2}, 13), (std::vector<int>{0, 3, 2, 3, 1, 3, 2, 3, 1, 3, 2, 3, 0})); }

TEST(Refresh, EveryStep) { EXPECT_EQ(stages({1, 1, 1}, 3), (std::vector<int>{0, 0, 0})); }

TEST(Refresh, StreamingHasOneInterval) { EXPECT_EQ(stages({3}, 7), (std::vector<int>{0, 1, 1, 0, 1, 1, 0})); }

TEST(Refresh, DenseHasNone) { EXPECT_EQ(stages({}, 3), (std::vector<int>{0, 0, 0})); }

// A million steps on, the phases are the same.
TEST(Refresh, LateCounters) {
  const std::vector<int> intervals = {16, 8, 4};
  for (int64_t counter = 0; counter < 32; ++counter) {
    EXPECT_EQ(first_refreshed_stage(intervals, counter), first_refreshed_stage(intervals, counter + (int64_t{1} << 40)));
  }
}

}  // namespace
}  // namespace bough
