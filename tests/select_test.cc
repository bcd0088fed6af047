// select: exactly the best chunks, ties to the lower start, for every body the same lists.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/attention_case.h"

namespace bough {
namespace {

// A problem of select: scores, candidates and limits of a few blocks.
struct Problem {
  Batch batch;
  std::vector<int32_t> start;  // empty: the grid
  std::vector<int32_t> count;
  std::vector<uint8_t> scored;
  std::vector<float> scores;
  std::vector<int64_t> limit;  // empty: none
  int list_heads = 1;
  int kv_heads = 1;
  int64_t capacity = 0;  // of candidates and scores
  int64_t sinks = 64;
  int chunk = 8;
  int64_t keep = 0;
  int64_t row_keep = 0;

  int64_t room() const { return std::max(keep, row_keep) + 1; }
  int64_t candidate(int64_t block, int head, int64_t j) const {
    return start.empty() ? sinks + j * chunk : start[static_cast<size_t>((block * list_heads + head) * capacity + j)];
  }
  float score(int64_t block, int head, int64_t j) const { return scores[static_cast<size_t>((block * kv_heads + head) * capacity + j)]; }
};

struct Selected {
  std::vector<int32_t> start;  // [nb, lh, room], unused slots -9
  std::vector<int32_t> count;
};

Selected select(const std::string& body, const Problem& p) {
  const auto blocks = static_cast<int64_t>(p.batch.blocks.size());
  Selected out{std::vector<int32_t>(static_cast<size_t>(blocks * p.list_heads * p.room()), -9),
               std::vector<int32_t>(p.batch.blocks.size(), -9)};
  SelectArgs args;
  args.batch = &p.batch;
  args.candidates = {p.start.empty() ? nullptr : p.start.data(), p.count.data(), p.list_heads, p.capacity, p.sinks, p.chunk};
  args.scored = p.scored.data();
  args.scores = p.scores.data();
  args.score_capacity = p.capacity;
  args.kv_heads = p.kv_heads;
  args.limit = p.limit.empty() ? nullptr : p.limit.data();
  args.keep = p.keep;
  args.row_keep = p.row_keep;
  args.start = out.start.data();
  args.count = out.count.data();
  args.capacity = p.room();
  test::body_named(body).select(args);
  return out;
}

// The same by definition: a chunk is in if fewer than `count` chunks of its list beat it.
Selected by_definition(const Problem& p) {
  Selected out;
  for (int64_t b = 0; b < static_cast<int64_t>(p.batch.blocks.size()); ++b) {
    std::vector<std::vector<std::pair<float, int64_t>>> lists;  // (-score, start)
    int64_t count = p.batch.blocks[static_cast<size_t>(b)].rows == 1 ? p.row_keep : p.keep;
    for (int lh = 0; lh < p.list_heads; ++lh) {
      std::vector<std::pair<float, int64_t>> list;
      for (int64_t j = 0; j < p.count[static_cast<size_t>(b)]; ++j) {
        if (!p.limit.empty() && p.candidate(b, lh, j) >= p.limit[static_cast<size_t>(b)]) continue;
        float best = test::kMinusInfinity;
        for (int h = 0; h < p.kv_heads; ++h) {
          if (p.list_heads == 1 || h == lh) best = std::max(best, p.score(b, h, j));
        }
        list.emplace_back(p.scored[static_cast<size_t>(b)] != 0 ? -best : 0.0F, p.candidate(b, lh, j));
      }
      count = std::min(count, static_cast<int64_t>(list.size()));
      lists.push_back(list);
    }
    out.count.push_back(static_cast<int32_t>(count));
    for (const auto& list : lists) {
      std::vector<int32_t> kept;
      for (const auto& x : list) {
        if (std::count_if(list.begin(), list.end(), [&](const auto& y) { return y < x; }) < count)
          kept.push_back(static_cast<int32_t>(x.second));
      }
      std::sort(kept.begin(), kept.end());
      kept.resize(static_cast<size_t>(p.room()), -9);
      out.start.insert(out.start.end(), kept.begin(), kept.end());
    }
  }
  return out;
}

// `levels` different scores: few make many ties.
Problem random_problem(uint64_t seed, std::vector<int32_t> counts, int list_heads, int kv_heads, int64_t keep, int levels) {
  Problem p;
  p.list_heads = list_heads;
  p.kv_heads = kv_heads;
  p.keep = p.row_keep = keep;
  p.count = std::move(counts);
  p.capacity = *std::max_element(p.count.begin(), p.count.end()) + 1;
  p.batch.blocks.resize(p.count.size());
  p.scored.assign(p.count.size(), 1);
  auto random = test::random_of(seed, 0, 0);
  for (size_t i = 0; i < p.count.size() * static_cast<size_t>(kv_heads * p.capacity); ++i) {
    p.scores.push_back(static_cast<float>(static_cast<int>(random() % static_cast<uint64_t>(levels)) - levels / 2));
  }
  return p;
}

void give_starts(Problem& p, uint64_t seed) {
  auto random = test::random_of(seed, 1, 0);
  for (size_t list = 0; list < p.count.size() * static_cast<size_t>(p.list_heads); ++list) {
    int32_t start = 64;
    for (int64_t j = 0; j < p.capacity; ++j) p.start.push_back(start += 8 * (1 + static_cast<int32_t>(random() % 5)));
  }
}

class SelectTest : public testing::TestWithParam<std::string> {
 protected:
  void expect_exact(const Problem& p) const {
    const Selected got = select(GetParam(), p);
    const Selected want = by_definition(p);
    EXPECT_EQ(got.count, want.count);
    // Slots beyond the count are left alone.
    EXPECT_EQ(got.start, want.start);
  }
};

TEST_P(SelectTest, PicksTheBestAndBreaksTiesToTheLowerStart) {
  Problem p = random_problem(1, {6}, 1, 1, 3, 2);
  p.scores = {1, 5, 1, 5, 1, 1, 0};
  EXPECT_EQ(select(GetParam(), p).start, (std::vector<int32_t>{64, 72, 88, -9}));
  p.scores = {-1, -1, -1, -1, -1, -1, 9};  // the last is no candidate
  EXPECT_EQ(select(GetParam(), p).start, (std::vector<int32_t>{64, 72, 80, -9}));
}

TEST_P(SelectTest, IsExactOnGridsAndListsWithAndWithoutTies) {
  for (const int levels : {1, 2, 5, 100000}) {
    for (const int list_heads : {1, 3}) {
      for (const int64_t keep : {1, 7, 64, 250}) {
        Problem p = random_problem(static_cast<uint64_t>(levels), {300, 1, 0, 77, 250, 251}, list_heads, 3, keep, levels);
        expect_exact(p);
        give_starts(p, 7);
        expect_exact(p);
      }
    }
  }
}

TEST_P(SelectTest, KeepNothingAndKeepMoreThanThereIs) {
  expect_exact(random_problem(2, {10, 0, 3}, 1, 2, 0, 5));
  expect_exact(random_problem(2, {10, 0, 3}, 2, 2, 10, 5));
  expect_exact(random_problem(2, {10, 0, 3}, 2, 2, 100, 5));
}

TEST_P(SelectTest, ALayersListTakesTheBestOfItsHeads) {
  Problem p = random_problem(3, {4}, 1, 2, 2, 2);
  p.scores = {0, 9, 0, 1, 0, /* second head */ 2, -9, 8, 1, 0};
  EXPECT_EQ(select(GetParam(), p).start, (std::vector<int32_t>{72, 80, -9}));
}

TEST_P(SelectTest, EachKvHeadsListFollowsItsOwnScores) {
  Problem p = random_problem(3, {4}, 2, 2, 2, 2);
  p.scores = {0, 9, 0, 1, 0, /* second head */ 2, -9, 8, 1, 0};
  EXPECT_EQ(select(GetParam(), p).start, (std::vector<int32_t>{72, 88, -9, 64, 80, -9}));
}

TEST_P(SelectTest, CandidatesAtOrAboveTheLimitTakeNoSlot) {
  Problem p = random_problem(4, {50, 50, 50}, 1, 1, 10, 1000);
  p.limit = {64 + 8 * 20, 64, 64 + 8 * 5};
  expect_exact(p);
  EXPECT_EQ(select(GetParam(), p).count, (std::vector<int32_t>{10, 0, 5}));
}

// Per-head lists lose different numbers of chunks to the limit; the block's count is one number.
TEST_P(SelectTest, ListHeadsKeepEquallyMany) {
  Problem p = random_problem(5, {6}, 2, 2, 5, 1000);
  p.start = {64, 72, 80, 88, 96, 104, 0, /* second head */ 64, 72, 160, 168, 176, 184, 0};
  p.limit = {100};
  expect_exact(p);
  EXPECT_EQ(select(GetParam(), p).count[0], 2);
  std::swap_ranges(p.start.begin(), p.start.begin() + 7, p.start.begin() + 7);
  expect_exact(p);
}

TEST_P(SelectTest, ABlockThatWasNotScoredKeepsAllInOrder) {
  Problem p = random_problem(6, {5, 40}, 1, 2, 8, 1000);
  p.scored = {0, 1};
  for (int64_t j = 0; j < 2 * p.capacity; ++j) p.scores[static_cast<size_t>(j)] = std::numeric_limits<float>::quiet_NaN();  // stale
  const Selected got = select(GetParam(), p);
  EXPECT_EQ(got.count, (std::vector<int32_t>{5, 8}));
  EXPECT_EQ(std::vector<int32_t>(got.start.begin(), got.start.begin() + 9), (std::vector<int32_t>{64, 72, 80, 88, 96, -9, -9, -9, -9}));
}

TEST_P(SelectTest, BlocksOfOneRowKeepAsManyAsTheyAreTold) {
  for (const int64_t row_keep : {0, 3, 40, 500}) {
    Problem p = random_problem(8, {300, 299, 30, 2}, 3, 3, 25, 10);
    p.row_keep = row_keep;
    p.batch.blocks[0].rows = p.batch.blocks[2].rows = p.batch.blocks[3].rows = 1;
    p.batch.blocks[1].rows = 2;
    expect_exact(p);
    EXPECT_EQ(select(GetParam(), p).count[1], 25);
  }
}

TEST_P(SelectTest, SameListsForEveryNumberOfThreads) {
  const Problem p = random_problem(7, {300, 299, 298, 297, 296}, 3, 3, 100, 10);
  const Selected want = select(GetParam(), p);
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] { EXPECT_EQ(select(GetParam(), p).start, want.start) << threads << " threads"; });
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, SelectTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
