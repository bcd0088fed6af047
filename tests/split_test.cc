// split: surviving chunks cut into the next stage's, ascending, per list.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/attention_case.h"

namespace bough {
namespace {

class SplitTest : public testing::TestWithParam<std::string> {};

struct Children {
  std::vector<int32_t> start;
  std::vector<int32_t> count;
};

// parents [nb, lh, capacity] with -1 where unused; unused slots of the result are -9.
Children split(const std::string& body, const std::vector<int32_t>& parents, const std::vector<int32_t>& counts, int list_heads,
               int parent_chunk, int chunk, int64_t capacity) {
  const auto blocks = static_cast<int64_t>(counts.size());
  Children out{std::vector<int32_t>(static_cast<size_t>(blocks * list_heads * capacity), -9), std::vector<int32_t>(counts.size(), -9)};
  SplitArgs args;
  args.blocks = blocks;
  args.list_heads = list_heads;
  args.parent = parents.data();
  args.parent_count = counts.data();
  args.parent_capacity = static_cast<int64_t>(parents.size()) / (blocks * list_heads);
  args.parent_chunk = parent_chunk;
  args.chunk = chunk;
  args.start = out.start.data();
  args.count = out.count.data();
  args.capacity = capacity;
  test::body_named(body).split(args);
  return out;
}

TEST_P(SplitTest, CutsEveryListOfEveryBlock) {
  const Children got = split(GetParam(), {64, 192, -1, 0, 320, -1, 128, -1, -1, 256, -1, -1}, {2, 1}, 2, 64, 32, 5);
  const std::vector<int32_t> want = {64, 96, 192, 224, -9, 0, 32, 320, 352, -9, 128, 160, -9, -9, -9, 256, 288, -9, -9, -9};
  EXPECT_EQ(got.start, want);
  EXPECT_EQ(got.count, (std::vector<int32_t>{4, 2}));
}

TEST_P(SplitTest, EqualChunksAreCopiedAndEmptyListsStayEmpty) {
  const Children got = split(GetParam(), {8, 24, -1, -1, 40, -1}, {2, 0, 1}, 1, 8, 8, 2);
  EXPECT_EQ(got.start, (std::vector<int32_t>{8, 24, -9, -9, 40, -9}));
  EXPECT_EQ(got.count, (std::vector<int32_t>{2, 0, 1}));
}

TEST_P(SplitTest, ManyBlocksOfManyChunks) {
  constexpr int kBlocks = 37;
  constexpr int kCapacity = 50;
  std::vector<int32_t> parents;
  std::vector<int32_t> counts;
  for (int b = 0; b < kBlocks; ++b) {
    counts.push_back(b % (kCapacity + 1));
    for (int i = 0; i < kCapacity; ++i) parents.push_back(64 * (b + 3 * i));
  }
  const Children got = split(GetParam(), parents, counts, 1, 64, 8, kCapacity * 8);
  for (int b = 0; b < kBlocks; ++b) {
    ASSERT_EQ(got.count[static_cast<size_t>(b)], 8 * (b % (kCapacity + 1)));
    for (int i = 0; i < kCapacity * 8; ++i) {
      const int32_t want = i < got.count[static_cast<size_t>(b)] ? 64 * (b + 3 * (i / 8)) + 8 * (i % 8) : -9;
      ASSERT_EQ(got.start[static_cast<size_t>(b * kCapacity * 8 + i)], want) << "block " << b << " child " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, SplitTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
