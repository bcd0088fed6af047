// attend: every body against the oracle and against textbook attention; the same bits in every company.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "cpu/tile.h"
#include "support/attention_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Input;
using test::Lists;
using test::ListSpec;
using test::SequenceSpec;

constexpr int64_t kPositions = 1100;

struct Output {
  std::vector<float> o;
  std::vector<float> lse;
  std::vector<std::vector<float>> mass;  // of the rows watched, [hq, groups]
};

// Rows of blocks before `first_block` keep the value 7. mass_keys > 0: rows 0, 3, 6, ... are watched.
Output attend(const AttentionBodies& body, const AttentionCase& c, const Input& input, const Lists& lists, const RopeTable& rope,
              int64_t first_block = 0, int mass_keys = 0) {
  const HeadShape heads = c.shape().head_shape();
  Output out;
  out.o.assign(static_cast<size_t>(input.batch.rows() * heads.heads * heads.head_dim), 7.0F);
  out.lse.assign(static_cast<size_t>(input.batch.rows() * heads.heads), 7.0F);
  auto args = test::args_of<AttendArgs>(c.shape(), input.batch, input.q, rope);
  args.first_block = first_block;
  args.lists = lists.view();
  args.window = lists.spec.sliding;
  args.o = out.o.data();
  args.lse = out.lse.data();
  Mass mass{mass_keys, nullptr};
  std::vector<float*> rows(static_cast<size_t>(input.batch.rows()), nullptr);
  out.mass.resize(rows.size());
  for (int64_t b = first_block; mass_keys > 0 && b < input.nb(); ++b) {
    const QueryBlock& block = input.batch.blocks[static_cast<size_t>(b)];
    const int64_t groups = mass.groups(context_of(lists.view(), block, b, 0).size());
    for (auto row = static_cast<size_t>(block.row); row < static_cast<size_t>(block.row + block.rows); ++row) {
      if (row % 3 != 0) continue;
      out.mass[row].assign(static_cast<size_t>(heads.heads * groups), 7.0F);
      rows[row] = out.mass[row].data();
    }
  }
  mass.rows = rows.data();
  if (mass_keys > 0) args.mass = &mass;
  body.attend(args);
  return out;
}

std::span<const float> row_of(const std::vector<float>& x, int64_t row, int d) {
  return std::span(x).subspan(static_cast<size_t>(row * d), static_cast<size_t>(d));
}

void expect_close(const Output& got, const Output& want, int d, double tolerance, const std::string& what) {
  EXPECT_LE(test::worst_row(got.o, want.o, d), tolerance) << what;
  EXPECT_LE(test::absolute_error(got.lse, want.lse), tolerance) << what;
}

class AttendTest : public test::BodyTest {
 protected:
  double tolerance() const { return test::attend_tolerance(GetParam()); }

  void compare(const CaseShape& shape, const std::vector<SequenceSpec>& sequences, const ListSpec& lists, const std::string& what) {
    if (GetParam().body == "ref") return;  // the oracle itself is held to textbook attention
    const AttentionCase c(shape, sequences, 17);
    const Input input = c.input();
    const Lists selected = test::random_lists(input.batch, lists, 3);
    const RopeTable rope = c.rope(kPositions);
    expect_close(attend(body(), c, input, selected, rope), attend(test::body_named("ref"), c, input, selected, rope), shape.d, tolerance(),
                 shape.name() + ", " + what);
  }
  void same_bits_in_every_company(const ListSpec& spec) const;
};

std::vector<SequenceSpec> ragged() {
  return {{.length = 333, .first_row = 332, .decode = true}, {.length = 500, .first_row = 390, .tail = 17}, {.length = 65, .first_row = 0}};
}

TEST(AttentionBodies, WhatThisCpuCanDoIsThere) {
  std::vector<std::string> names;
  for (const AttentionBodies& body : attention_bodies()) names.emplace_back(body.name);
  std::vector<std::string> expected = {"f32", "ref"};
  if (__builtin_cpu_supports("avx512bf16") != 0) expected.insert(expected.begin(), "avx512_bf16");
  if (cpu::tile_amx() != nullptr) expected.insert(expected.begin(), "amx_bf16");
  EXPECT_EQ(names, expected);
  EXPECT_EQ(pick_attention_bodies(DType::f32)->name, "f32");
  EXPECT_EQ(pick_attention_bodies(DType::bf16)->name, expected.front());
  EXPECT_EQ(pick_attention_bodies(DType::f32, "avx512_bf16"), nullptr);
  EXPECT_EQ(pick_attention_bodies(DType::f32, "amx_bf16"), nullptr);
  EXPECT_EQ(pick_attention_bodies(DType::f32, "abacus"), nullptr);
}

TEST_P(AttendTest, EqualsTheOracleAtEveryLength) {
  for (const int64_t length : {1, 2, 31, 63, 64, 65, 127, 500, 1000}) {
    const std::vector<SequenceSpec> rows = {{.length = length, .first_row = std::max<int64_t>(0, length - 70)}};
    compare(shape(), rows, {.sinks = 64, .window = 128, .most = 9}, "length " + std::to_string(length));
  }
}

TEST_P(AttendTest, EqualsTheOracleForEveryShapeOfHeads) {
  const ListSpec lists = {.sinks = 64, .window = 72, .most = 6};
  for (const int d : {32, 64, 80, 96, 128, 256}) {
    for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
      compare({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = d, .layout = layout}, ragged(), lists, "ragged");
    }
  }
  for (const int group : {1, 3, 8}) {
    compare({.type = GetParam().type, .heads = 2 * group, .kv_heads = 2, .d = 32}, ragged(), lists, "ragged");
  }
}

TEST_P(AttendTest, EqualsTheOracleForEveryKindOfList) {
  for (const int64_t sinks : {0, 64, 256}) {
    for (const int list_heads : {1, 2}) {
      const std::string what = "sinks " + std::to_string(sinks) + ", list heads " + std::to_string(list_heads);
      const CaseShape shape = {.type = GetParam().type, .heads = 4, .d = 32};
      compare(shape, ragged(), {.list_heads = list_heads, .sinks = sinks, .window = 64, .chunk = 16, .most = 7}, what);
      compare(shape, ragged(), {.list_heads = list_heads, .sinks = sinks, .window = 64, .most = 0}, what + ", nothing selected");
    }
  }
  for (const int64_t block : {1, 17, 64}) {
    const std::vector<SequenceSpec> rows = {{.length = 300, .first_row = 200, .block = block}};
    compare(shape(), rows, {.window = 64, .most = 5}, "blocks of " + std::to_string(block));
  }
}

// Softcaps that the scores of unit variance feel, rotated parts of a head, YaRN's magnitude; windows of less and of more than a block.
TEST_P(AttendTest, EqualsTheOracleForEveryKindOfLayer) {
  for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
    for (const int rotated : {16, 30}) {
      compare({.type = GetParam().type, .d = 80, .layout = layout, .rotated = rotated, .magnitude = 1.2}, ragged(),
              {.sinks = 64, .window = 72, .most = 6}, "magnitude 1.2");
    }
  }
  for (const float softcap : {0.0F, 0.7F, 50.0F}) {
    for (const int64_t sliding : {0, 1, 7, 64, 100, 300, 1000}) {
      compare({.type = GetParam().type, .softcap = softcap}, ragged(), {.sinks = 64, .window = 72, .most = 6, .sliding = sliding},
              "sliding " + std::to_string(sliding));
    }
  }
}

// The row at position p sees (p - n, p], as far apart as they are.
TEST_P(AttendTest, ASlidingWindowIsTextbookAttentionOverItsTokens) {
  for (const int64_t n : {1, 50, 64, 129, 400}) {
    const CaseShape shape = {.type = GetParam().type, .heads = 3, .kv_heads = 1, .softcap = 1.5F};
    const AttentionCase c(shape, {{.length = 401, .first_row = 320}}, 5);
    const Input input = c.input();
    const Output got = attend(body(), c, input, test::random_lists(input.batch, {.sliding = n}, 0), c.rope(401));
    for (int64_t row = 0; row < input.batch.rows(); row += 16) {
      std::vector<int64_t> tokens(static_cast<size_t>(std::min(n, 320 + row + 1)));
      std::iota(tokens.begin(), tokens.end(), 320 + row + 1 - static_cast<int64_t>(tokens.size()));
      for (int head = 0; head < shape.heads; ++head) {
        const int64_t at = row * shape.heads + head;
        const int64_t rank = tokens[0] - std::max<int64_t>(0, 321 + row / 64 * 64 - n);
        const test::Exact exact = test::textbook(c, 0, row_of(input.q, at, shape.d), 0, tokens, rank);
        EXPECT_LE(test::relative_error(row_of(got.o, at, shape.d), exact.o), tolerance()) << "n " << n << " row " << row;
        EXPECT_NEAR(got.lse[static_cast<size_t>(at)], exact.lse, tolerance()) << "n " << n << " row " << row;
      }
    }
  }
}

TEST_P(AttendTest, AWindowAsLongAsTheTextChangesNoBit) {
  const AttentionCase c(shape(), {{.length = 320, .first_row = 256}}, 7);
  const Input input = c.input();
  const RopeTable rope = c.rope(kPositions);
  const Output dense = attend(body(), c, input, test::random_lists(input.batch, {.dense = true}, 0), rope);
  const Output sliding = attend(body(), c, input, test::random_lists(input.batch, {.sliding = 320}, 0), rope);
  EXPECT_TRUE(test::same_bits(sliding.o, dense.o));
  EXPECT_TRUE(test::same_bits(sliding.lse, dense.lse));
}

TEST_P(AttendTest, WithoutAListIsTextbookAttentionAtTruePositions) {
  for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
    const CaseShape shape = {.type = GetParam().type, .heads = 3, .kv_heads = 1, .layout = layout};
    const AttentionCase c(shape, {{.length = 401, .first_row = 320}}, 5);
    const Input input = c.input();
    const Output got = attend(body(), c, input, test::random_lists(input.batch, {.dense = true}, 0), c.rope(401));
    for (int64_t row = 0; row < input.batch.rows(); row += 16) {
      std::vector<int64_t> tokens(static_cast<size_t>(320 + row + 1));
      std::iota(tokens.begin(), tokens.end(), 0);
      for (int head = 0; head < shape.heads; ++head) {
        const int64_t at = row * shape.heads + head;
        const test::Exact exact = test::textbook(c, 0, row_of(input.q, at, shape.d), 0, tokens);
        EXPECT_LE(test::relative_error(row_of(got.o, at, shape.d), exact.o), tolerance()) << "row " << row;
        EXPECT_NEAR(got.lse[static_cast<size_t>(at)], exact.lse, tolerance()) << "row " << row;
      }
    }
  }
}

TEST_P(AttendTest, WithAListIsTextbookAttentionOverTheContextByRank) {
  const AttentionCase c(shape(), {{.length = 700, .first_row = 640}}, 6);
  const Input input = c.input();
  const ListSpec spec = {.list_heads = 2, .sinks = 64, .window = 128, .chunk = 16, .most = 5};
  const Lists lists = test::random_lists(input.batch, spec, 1);
  const Output got = attend(body(), c, input, lists, c.rope(kPositions));
  const int64_t w0 = window_start(640, 700, 64, 128, 16);
  EXPECT_EQ(w0, 512);
  for (const int64_t row : {0, 1, 33, 59}) {
    for (int head = 0; head < 6; ++head) {
      std::vector<int64_t> tokens(64);
      std::iota(tokens.begin(), tokens.end(), 0);
      for (int i = 0; i < 5 * 16; ++i) tokens.push_back(lists.view().list(0, head / 3)[i / 16] + i % 16);
      for (int64_t token = w0; token <= 640 + row; ++token) tokens.push_back(token);
      const int64_t at = row * 6 + head;
      const test::Exact exact = test::textbook(c, 0, row_of(input.q, at, 64), head / 3, tokens);
      EXPECT_LE(test::relative_error(row_of(got.o, at, 64), exact.o), tolerance()) << "row " << row << " head " << head;
      EXPECT_NEAR(got.lse[static_cast<size_t>(at)], exact.lse, tolerance()) << "row " << row << " head " << head;
    }
  }
}

TEST_P(AttendTest, MassIsTheSumOfTextbookProbabilities) {
  const AttentionCase c(shape(), {{.length = 700, .first_row = 576, .tail = 10}}, 6);
  const Input input = c.input();
  const Lists lists = test::random_lists(input.batch, {.list_heads = 2, .sinks = 64, .window = 128, .chunk = 16, .most = 20}, 1);
  const Output plain = attend(body(), c, input, lists, c.rope(kPositions));
  for (const int keys : {1, 8, 32}) {
    const Output got = attend(body(), c, input, lists, c.rope(kPositions), 0, keys);
    EXPECT_TRUE(test::same_bits(got.o, plain.o) && test::same_bits(got.lse, plain.lse)) << "watching changes nothing";
    for (int64_t b = 0; b < input.nb(); ++b) {
      const QueryBlock& block = input.batch.blocks[static_cast<size_t>(b)];
      for (int64_t row = block.row; row < block.row + block.rows; ++row) {
        const std::vector<float>& mass = got.mass[static_cast<size_t>(row)];
        if (row % 21 != 0 && (row < 114 || row % 3 != 0)) continue;
        for (int head = 0; head < 6; ++head) {
          const Context context = context_of(lists.view(), block, b, head / 3);
          std::vector<int64_t> tokens;
          for (int64_t rank = 0; rank <= context.size() - block.rows + row - block.row; ++rank) tokens.push_back(context.token(rank));
          const test::Exact exact = test::textbook(c, 0, row_of(input.q, row * 6 + head, 64), head / 3, tokens);
          const std::vector<float> want = exact.mass(keys, context.size());
          const std::span<const float> own = std::span(mass).subspan(static_cast<size_t>(head) * want.size(), want.size());
          EXPECT_LE(test::absolute_error(own, want), tolerance()) << keys << " keys, row " << row << ", head " << head;
          EXPECT_NEAR(std::accumulate(own.begin(), own.end(), 0.0), 1.0, tolerance()) << "row " << row << ", head " << head;
        }
      }
    }
  }
}

TEST_P(AttendTest, ARowThatSeesNothingHasNoMass) {
  const AttentionCase c(shape(), {{.length = 64, .first_row = 0}}, 6);
  const Input input = c.input();
  Lists lists = test::random_lists(input.batch, {.dense = true}, 1);
  lists.w0[0] = 63;  // one key, which only the last row sees
  const Output got = attend(body(), c, input, lists, c.rope(kPositions), 0, 8);
  EXPECT_THAT(got.mass[60], testing::Each(0.0F));
  EXPECT_THAT(got.mass[63], testing::Each(testing::FloatNear(1.0F, 1e-6F)));
}

TEST_P(AttendTest, PrunedEqualsDenseBitForBitWhileEverythingFits) {
  const AttentionCase c(shape(), {{.length = 320, .first_row = 256}}, 7);
  const Input input = c.input();
  const RopeTable rope = c.rope(kPositions);
  Lists all = test::random_lists(input.batch, {.sinks = 64, .window = 64, .most = 100}, 1);
  ASSERT_EQ(all.count[0] * 8, all.w0[0] - 64);
  const Output dense = attend(body(), c, input, test::random_lists(input.batch, {.dense = true}, 0), rope);
  const Output pruned = attend(body(), c, input, all, rope);
  EXPECT_TRUE(test::same_bits(pruned.o, dense.o));
  EXPECT_TRUE(test::same_bits(pruned.lse, dense.lse));
}

TEST_P(AttendTest, SameBitsAloneAndForEveryNumberOfThreads) {
  same_bits_in_every_company({.list_heads = 2, .sinks = 64, .window = 64, .most = 7});
  same_bits_in_every_company({.list_heads = 2, .sliding = 90});
}

void AttendTest::same_bits_in_every_company(const ListSpec& spec) const {
  const AttentionCase c({.type = GetParam().type, .softcap = spec.sliding > 0 ? 2.0F : 0.0F}, ragged(), 8);
  const RopeTable rope = c.rope(kPositions);
  const Input together = c.input();
  const Lists lists = test::random_lists(together.batch, spec, 3);
  const Output batch = attend(body(), c, together, lists, rope);
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      const Output again = attend(body(), c, together, lists, rope);
      EXPECT_TRUE(test::same_bits(again.o, batch.o) && test::same_bits(again.lse, batch.lse)) << threads << " threads";
    });
  }
  size_t from = 0;
  for (int sequence = 0; sequence < 3; ++sequence) {
    const Input input = c.alone(sequence);
    const Output alone = attend(body(), c, input, test::random_lists(input.batch, spec, 3), rope);
    EXPECT_TRUE(test::same_bits(alone.o, std::span(batch.o).subspan(from, alone.o.size()))) << "sequence " << sequence;
    from += alone.o.size();
  }
}

TEST_P(AttendTest, SliceCutsChangeNoBit) {
  const ListSpec spec = {.sinks = 64, .window = 64, .most = 7};
  const AttentionCase c(shape(), {{.length = 400, .first_row = 200}, {.length = 400, .first_row = 200}}, 9);
  const RopeTable rope = c.rope(kPositions);
  const Input whole = c.alone(0);
  const Output all = attend(body(), c, whole, test::random_lists(whole.batch, spec, 3), rope);
  Input rest = whole;  // the blocks from position 256 on, as a batch of their own
  const auto cut = static_cast<size_t>(256 - 200);
  rest.batch.blocks.erase(rest.batch.blocks.begin());
  for (QueryBlock& block : rest.batch.blocks) block.row -= static_cast<int32_t>(cut);
  rest.batch.ids.resize(rest.batch.ids.size() - cut);
  rest.q.erase(rest.q.begin(), rest.q.begin() + static_cast<ptrdiff_t>(cut * 6 * 64));
  const Output part = attend(body(), c, rest, test::random_lists(rest.batch, spec, 3), rope);
  EXPECT_TRUE(test::same_bits(part.o, std::span(all.o).subspan(cut * 6 * 64)));
}

TEST_P(AttendTest, LeavesEarlierBlocksAlone) {
  const AttentionCase c(shape(), ragged(), 10);
  const Input input = c.input();
  const Lists lists = test::random_lists(input.batch, {.sinks = 64, .window = 64, .most = 7}, 3);
  const RopeTable rope = c.rope(kPositions);
  const Output all = attend(body(), c, input, lists, rope);
  const Output some = attend(body(), c, input, lists, rope, 2);
  const size_t kept = static_cast<size_t>(input.batch.blocks[2].row) * 6 * 64;
  EXPECT_THAT(std::vector<float>(some.o.begin(), some.o.begin() + static_cast<ptrdiff_t>(kept)), testing::Each(7.0F));
  EXPECT_TRUE(test::same_bits(std::span(some.o).subspan(kept), std::span(all.o).subspan(kept)));
}

INSTANTIATE_TEST_SUITE_P(Bodies, AttendTest, testing::ValuesIn(test::body_cases()), test::body_case_name);

}  // namespace
}  // namespace bough
