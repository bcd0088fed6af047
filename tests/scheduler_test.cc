// Scheduler: slices of sequences -> a ragged batch with its query blocks.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "sched/scheduler.h"

namespace bough {
namespace {

constexpr KvShape kShape{DType::f32, 1, 1, 2};

std::vector<TokenId> count_from(TokenId first, size_t n) {
  std::vector<TokenId> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Blocks as "sequence:r0+rows@row".
std::string text(const Batch& batch) {
  std::string all;
  for (const QueryBlock& b : batch.blocks) {
    all += (all.empty() ? "" : " ") + std::to_string(b.seq) + ":" + std::to_string(b.r0) + "+" + std::to_string(b.rows) + "@" +
           std::to_string(b.row);
  }
  return all;
}

class Scheduler : public testing::Test {
 protected:
  // `length` tokens held already.
  Sequence& sequence(int64_t length) {
    sequences_.push_back(std::make_unique<Sequence>(&pool_, 1));
    Sequence& s = *sequences_.back();
    EXPECT_TRUE(s.pages.extend(length).ok());
    s.tokens = count_from(1000, static_cast<size_t>(length));
    return s;
  }

  PagePool pool_{kShape};
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(Scheduler, SliceEndsAtPages) {
  EXPECT_EQ(slice_end(0, 100, 4096), 100);
  EXPECT_EQ(slice_end(0, 4096, 4096), 4096);
  EXPECT_EQ(slice_end(0, 4097, 4096), 4096);
  EXPECT_EQ(slice_end(10, 9000, 4096), 4096);
  EXPECT_EQ(slice_end(4096, 9000, 4096), 8192);
  EXPECT_EQ(slice_end(8192, 9000, 4096), 9000);
}

TEST_F(Scheduler, SlicesAlwaysMoveOn) {
  for (const int64_t most : {1, 63, 64, 65, 1000}) {
    for (const int64_t begin : {0, 1, 63, 64, 100}) {
      for (int64_t at = begin; at < 700;) {
        const int64_t next = slice_end(at, 700, most);
        ASSERT_GT(next, at);
        ASSERT_LE(next - at, most);
        ASSERT_LE(next, 700);
        at = next;
      }
    }
  }
}

TEST_F(Scheduler, BlocksEndAtTheGrid) {
  Sequence& s = sequence(100);
  const std::vector<TokenId> tokens = count_from(5, 60);
  const Slice slice{&s, tokens};
  const Result<Batch> batch = make_batch({&slice, 1}, 64);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(text(*batch), "0:100+28@0 0:128+32@28");
  EXPECT_EQ(batch->ids, tokens);
  EXPECT_EQ(batch->positions.front(), 100);
  EXPECT_EQ(batch->positions.back(), 159);
  EXPECT_EQ(batch->decode_rows, 0);
  EXPECT_TRUE(batch->logit_rows.empty());
  EXPECT_EQ(s.length(), 160);
  EXPECT_EQ(s.pages.length(), 160);
  EXPECT_EQ(batch->sequences[0].length, 160);
}

TEST_F(Scheduler, SmallerQueryBlocks) {
  Sequence& s = sequence(10);
  const std::vector<TokenId> tokens = count_from(5, 30);
  const Slice slice{&s, tokens};
  const Result<Batch> batch = make_batch({&slice, 1}, 16);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(text(*batch), "0:10+6@0 0:16+16@6 0:32+8@22");
}

TEST_F(Scheduler, TailRowsAreBlocks) {
  Sequence& s = sequence(60);
  const std::vector<TokenId> tokens = count_from(5, 8);
  const Slice slice{&s, tokens, false, 65, 2};
  const Result<Batch> batch = make_batch({&slice, 1}, 64);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(text(*batch), "0:60+4@0 0:64+1@4 0:65+1@5 0:66+1@6 0:67+1@7");
  EXPECT_EQ(batch->logit_rows, (std::vector<int32_t>{6, 7}));
}

TEST_F(Scheduler, DecodeRowsComeFirst) {
  Sequence &a = sequence(3), &b = sequence(70), &c = sequence(0);
  const std::vector<TokenId> long_text = count_from(5, 66), one = {42}, other = {43};
  const Slice slices[] = {{&a, long_text, false, INT64_MAX, 1}, {&b, one, true, INT64_MAX, 1}, {&c, other, true, INT64_MAX, 0}};
  const Result<Batch> batch = make_batch(slices, 64);
  ASSERT_TRUE(batch.ok());
  EXPECT_EQ(batch->decode_rows, 2);
  EXPECT_EQ(text(*batch), "0:70+1@0 1:0+1@1 2:3+61@2 2:64+5@63");
  EXPECT_EQ(batch->ids[0], 42);
  EXPECT_EQ(batch->ids[1], 43);
  EXPECT_EQ(batch->row_seq[2], 2);
  EXPECT_EQ(batch->sequences[2].length, 69);
  EXPECT_EQ(batch->logit_rows, (std::vector<int32_t>{0, 67}));
}

TEST_F(Scheduler, RefusalLeavesEverySequenceAsItWas) {
  Sequence &a = sequence(3), &b = sequence(70);
  const std::vector<TokenId> two = {42, 43};
  const Slice slices[] = {{&a, two}, {&b, two, true}};
  const int64_t pages = pool_.pages_in_use();
  const Result<Batch> batch = make_batch(slices, 64);
  ASSERT_FALSE(batch.ok());
  EXPECT_EQ(batch.status().code(), Code::invalid_argument);
  EXPECT_EQ(a.length(), 3);
  EXPECT_EQ(a.pages.length(), 3);
  EXPECT_EQ(b.length(), 70);
  EXPECT_EQ(pool_.pages_in_use(), pages);
}

TEST_F(Scheduler, RollbackRestartsTheAttentionState) {
  Sequence& s = sequence(200);
  LayerState& layer = s.attention.layers[0];
  s.attention.counter = 7;
  layer.searched = true;
  layer.holds = LayerState::Holds::pruned;
  layer.set.size = 90;
  s.rollback(130);
  EXPECT_EQ(s.length(), 130);
  EXPECT_EQ(pool_.pages_in_use(), 3);
  EXPECT_EQ(s.attention.counter, 0);
  EXPECT_FALSE(layer.searched);
  EXPECT_EQ(layer.set.size, 0);
  EXPECT_EQ(layer.holds, LayerState::Holds::nothing);
}

// A working set that holds every token keeps those before the cut: their ranks are their positions.
TEST_F(Scheduler, RollbackKeepsWhatADenseSetHolds) {
  Sequence& s = sequence(200);
  LayerState& layer = s.attention.layers[0];
  layer.holds = LayerState::Holds::run;
  layer.set.size = 200;
  s.rollback(130);
  EXPECT_EQ(layer.set.size, 130);
  EXPECT_EQ(layer.holds, LayerState::Holds::run);
}

}  // namespace
}  // namespace bough
