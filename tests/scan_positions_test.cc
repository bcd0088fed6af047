// Where scans put queries and keys, against literal tables.
#include "steps/scan_positions.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "steps/scan.h"

namespace bough {
namespace {

using Table = std::vector<std::pair<int64_t, int64_t>>;  // token, position

// Rows 40 and 41, a window of 4, a model trained on 16 tokens.
ScanPositions positions(Scan scan, int64_t candidates = 3) { return {scan, QueryBlock{0, 0, 2, 40}, candidates, 4, 16}; }

void expect_keys(const ScanPositions& p, const Table& table) {
  for (const auto& [token, position] : table) EXPECT_EQ(p.key(token, 0), position) << "token " << token;
}

TEST(ScanPositions, RelativeAndInfllmTurnNoKey) {
  for (const Scan scan : {Scan::relative, Scan::infllm}) {
    const ScanPositions p = positions(scan);
    EXPECT_FALSE(p.turns_keys());
    EXPECT_EQ(p.two_sided(), scan == Scan::relative);
    for (const int64_t row : {40, 41}) EXPECT_EQ(p.query(row), 4);
    EXPECT_EQ(p.key(17, 2), 0);
  }
}

TEST(ScanPositions, ChunkIndexedCountsCandidates) {
  const ScanPositions few = positions(Scan::chunk_indexed);
  EXPECT_TRUE(few.turns_keys());
  EXPECT_FALSE(few.two_sided());
  EXPECT_EQ(few.query(40), 3 + 4);
  EXPECT_EQ(few.query(41), 3 + 4);
  for (const int64_t j : {0, 1, 2}) EXPECT_EQ(few.key(17, j), j);
  const ScanPositions many = positions(Scan::chunk_indexed, 30);  // 30 + 4 does not fit into 16: three share an index
  EXPECT_EQ(many.query(40), 10 + 4);
  for (const auto& [j, position] : Table{{0, 0}, {2, 0}, {3, 1}, {28, 9}, {29, 9}}) EXPECT_EQ(many.key(17, j), position) << j;
  const ScanPositions early(Scan::chunk_indexed, QueryBlock{0, 0, 2, 5}, 3, 4, 16);
  EXPECT_EQ(early.query(5), 5) << "no query stands behind its own position";
}

// Positions count from 42 - 16 = 26. The last 4 keys are where they are; [0, 36) shares 12 positions evenly.
TEST(ScanPositions, DynamicExtendSqueezesWhatIsFar) {
  const ScanPositions p = positions(Scan::dynamic_extend);
  EXPECT_TRUE(p.turns_keys());
  EXPECT_EQ(p.query(40), 14);
  EXPECT_EQ(p.query(41), 15);
  expect_keys(p, {{41, 15}, {40, 14}, {38, 12}, {37, 10}, {36, 10}, {35, 10}, {34, 10}, {33, 9}, {30, 8}, {9, 1}, {6, 0}, {0, 0}});
}

// The last 16 keys are where they are; older ones go three to a position, counted back from row 40.
TEST(ScanPositions, SelfExtendGroupsWhatIsFar) {
  const ScanPositions p = positions(Scan::self_extend);
  EXPECT_TRUE(p.turns_keys());
  EXPECT_EQ(p.query(40), 14);
  EXPECT_EQ(p.query(41), 15);
  expect_keys(p, {{41, 15}, {40, 14}, {27, 1}, {26, 0}, {25, 9}, {24, 8}, {23, 8}, {22, 8}, {21, 7}, {4, 2}, {3, 1}, {1, 1}, {0, 0}});
}

TEST(ScanPositions, ShortTextsKeepTruePositions) {
  for (const Scan scan : {Scan::dynamic_extend, Scan::self_extend}) {
    const ScanPositions p(scan, QueryBlock{0, 0, 2, 14}, 3, 4, 16);
    for (const int64_t i : {0, 1, 7, 14, 15}) {
      EXPECT_EQ(p.key(i, 0), i);
      EXPECT_EQ(p.query(i), i);
    }
  }
}

// At every length each key and query stands inside the trained context, and no key stands behind one that follows it in the same region.
TEST(ScanPositions, StayInsideTheTrainedContext) {
  for (const Scan scan : {Scan::dynamic_extend, Scan::self_extend}) {
    for (const int64_t r0 : {0, 192, 8128, 8192, 8256, 131'072, 3'000'000}) {
      for (const int32_t rows : {1, 17, 64}) {
        const ScanPositions p(scan, QueryBlock{0, 0, rows, r0}, 3, 768, 8192);
        for (const int64_t row : {r0, r0 + rows - 1}) {
          EXPECT_GE(p.query(row), 0);
          EXPECT_LT(p.query(row), 8192);
        }
        int64_t before = 0;
        for (int64_t i = 0; i < r0 + rows; i += 1 + r0 / 5000) {
          const int64_t at = p.key(i, 0);
          ASSERT_GE(at, 0) << r0 << ", key " << i;
          ASSERT_LT(at, 8192) << r0 << ", key " << i;
          if (scan == Scan::dynamic_extend) {
            ASSERT_GE(at, before) << r0 << ", key " << i;
          }
          before = at;
        }
      }
    }
  }
}

TEST(ScanPositions, PooledRowsStandWhereTheirTokensDo) {
  const QueryBlock block{0, 0, 9, 6};  // rows 6 .. 14 in groups of 4: 6-7, 8-11, 12-14
  const std::vector<int64_t> first = {6, 8, 12}, last = {7, 11, 14};
  ASSERT_EQ(pooled_rows(block, 4, Pool::mean), 3);
  for (int64_t g = 0; g < 3; ++g) {
    EXPECT_EQ(pooled_position(block, 4, Pool::mean, g), first[static_cast<size_t>(g)]);
    EXPECT_EQ(pooled_position(block, 4, Pool::strided, g), last[static_cast<size_t>(g)]);
  }
  for (int64_t r = 0; r < 9; ++r) EXPECT_EQ(pooled_position(block, 4, Pool::all, r), 6 + r);
}

}  // namespace
}  // namespace bough
