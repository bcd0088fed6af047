// attend_cached and working sets: against the oracle, attend and textbook attention; built at once or key by key; the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "support/attention_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Input;
using test::Lists;
using test::ListSpec;
using test::SequenceSpec;

constexpr int64_t kPositions = 1400;

std::vector<SequenceSpec> decode_rows(const std::vector<int64_t>& lengths) {
  std::vector<SequenceSpec> specs;
  for (const int64_t length : lengths) specs.push_back({.length = length, .first_row = length - 1, .decode = true});
  return specs;
}

// Working sets of a batch of decode rows and what they give.
class Decode {
 public:
  Decode(const AttentionBodies& body, const AttentionCase& c, const RopeTable& rope) : body_(body), case_(c), rope_(rope) {}

  // A row sees this many of its last keys; 0: all.
  void slide(int64_t window) { window_ = window; }

  // Builds the set of row `row`'s context; `from` as in WorkingSetArgs. Rows are in the order of the batch's blocks.
  void build(const Input& input, const Lists& lists, int row, int64_t from = 0) {
    while (sets_.size() <= static_cast<size_t>(row)) sets_.push_back(std::make_unique<WorkingSet>());
    WorkingSet& set = *sets_[static_cast<size_t>(row)];
    std::vector<Context> contexts;
    const QueryBlock& block = input.batch.blocks[static_cast<size_t>(row)];
    for (int h = 0; h < lists.spec.list_heads; ++h) contexts.push_back(context_of(lists.view(), block, row, h));
    ASSERT_TRUE(body_.working_set_reserve(case_.shape().kv(), contexts[0].size(), set));
    WorkingSetArgs args;
    args.pages = &input.batch.sequences[static_cast<size_t>(block.seq)];
    args.kv = case_.shape().kv();
    args.layer = case_.shape().layer;
    args.rope = &rope_;
    args.contexts = contexts.data();
    args.list_heads = lists.spec.list_heads;
    args.from = from;
    args.set = &set;
    body_.working_set_build(args);
    EXPECT_EQ(set.size, contexts[0].size());
  }

  // mass_keys > 0: every second row is watched, and its mass [hq, groups] goes to `watched`.
  std::vector<float> attend(const Input& input, int mass_keys = 0, std::vector<std::vector<float>>* watched = nullptr) const {
    std::vector<const WorkingSet*> sets;
    for (const auto& set : sets_) sets.push_back(set.get());
    std::vector<float> o(input.q.size(), 7.0F);
    auto args = test::args_of<AttendCachedArgs>(case_.shape(), input.batch, input.q, rope_);
    args.sets = sets.data();
    args.window = window_;
    args.o = o.data();
    Mass mass{mass_keys, nullptr};
    std::vector<float*> rows(static_cast<size_t>(input.batch.rows()), nullptr);
    if (mass_keys > 0) {
      watched->resize(sets_.size());
      for (size_t row = 0; row < sets_.size(); row += 2) {
        (*watched)[row].assign(static_cast<size_t>(args.heads.heads * mass.groups(sets[row]->size)), 7.0F);
        rows[row] = (*watched)[row].data();
      }
      mass.rows = rows.data();
      args.mass = &mass;
    }
    body_.attend_cached(args);
    return o;
  }

  std::vector<float> build_and_attend(const Input& input, const Lists& lists) {
    for (int row = 0; row < input.batch.decode_rows; ++row) build(input, lists, row);
    return attend(input);
  }

 private:
  const AttentionBodies& body_;
  const AttentionCase& case_;
  const RopeTable& rope_;
  int64_t window_ = 0;
  std::vector<std::unique_ptr<WorkingSet>> sets_;
};

std::vector<float> attend_one_row_blocks(const AttentionBodies& body, const AttentionCase& c, const Input& input, const Lists& lists,
                                         const RopeTable& rope) {
  std::vector<float> o(input.q.size(), 7.0F);
  auto args = test::args_of<AttendArgs>(c.shape(), input.batch, input.q, rope);
  args.lists = lists.view();
  args.o = o.data();
  body.attend(args);
  return o;
}

class AttendCachedTest : public test::BodyTest {
 protected:
  double tolerance() const { return test::attend_tolerance(GetParam()); }

  void compare(const CaseShape& shape, const std::vector<int64_t>& lengths, const ListSpec& spec) {
    if (GetParam().body == "ref") return;  // the oracle itself is held to textbook attention
    const AttentionCase c(shape, decode_rows(lengths), 21);
    const Input input = c.input();
    const Lists lists = test::random_lists(input.batch, spec, 4);
    const RopeTable rope = c.rope(kPositions);
    const auto want = Decode(test::body_named("ref"), c, rope).build_and_attend(input, lists);
    const auto got = Decode(body(), c, rope).build_and_attend(input, lists);
    EXPECT_LE(test::worst_row(got, want, shape.d), tolerance()) << shape.name();
    EXPECT_LE(test::worst_row(got, attend_one_row_blocks(body(), c, input, lists, rope), shape.d), tolerance()) << shape.name();
  }
};

TEST_P(AttendCachedTest, EqualsTheOracleAndAttendAtEveryLength) {
  for (const int64_t length : {1, 2, 31, 32, 33, 63, 64, 65, 127, 500, 511, 512, 513, 1000}) compare(shape(), {length}, {.dense = true});
}

TEST_P(AttendCachedTest, EqualsTheOracleAndAttendForEveryShapeOfHeads) {
  const ListSpec spec = {.sinks = 64, .window = 72, .most = 60};
  for (const int d : {32, 64, 80, 96, 128, 256}) {
    for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
      compare({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = d, .layout = layout}, {700, 41, 555}, spec);
    }
  }
  for (const int group : {1, 3, 8}) compare({.type = GetParam().type, .heads = 2 * group, .kv_heads = 2, .d = 32}, {700, 41, 555}, spec);
}

TEST_P(AttendCachedTest, EqualsTheOracleAndAttendForEveryKindOfLayer) {
  const ListSpec spec = {.sinks = 64, .window = 72, .most = 60};
  for (const float softcap : {0.7F, 50.0F}) compare({.type = GetParam().type, .softcap = softcap}, {700, 41}, spec);
  for (const int rotated : {16, 30}) {
    compare({.type = GetParam().type, .d = 80, .layout = RopeLayout::halves, .rotated = rotated, .magnitude = 1.2}, {700, 41}, spec);
  }
}

// A set holds every token from some multiple of 128 on; the row sees its last n.
TEST_P(AttendCachedTest, ASlidingWindowIsTextbookAttentionOverItsTokens) {
  const CaseShape shape = {.type = GetParam().type, .softcap = 1.5F};
  const AttentionCase c(shape, decode_rows({1300}), 22);
  const RopeTable rope = c.rope(kPositions);
  const Input input = c.input();
  for (const int64_t n : {1, 33, 500, 512, 600, 1172, 1300}) {
    Lists run = test::random_lists(input.batch, {.sliding = n}, 0);
    run.w0[0] = run.w0[0] / 128 * 128;
    Decode decode(body(), c, rope);
    decode.slide(n);
    const auto got = decode.build_and_attend(input, run);
    std::vector<int64_t> tokens(static_cast<size_t>(n));
    std::iota(tokens.begin(), tokens.end(), 1300 - n);
    for (size_t head = 0; head < 6; ++head) {
      const auto exact =
          test::textbook(c, 0, std::span(input.q).subspan(head * 64, 64), static_cast<int>(head) / 3, tokens, 1300 - n - run.w0[0]);
      EXPECT_LE(test::relative_error(std::span(got).subspan(head * 64, 64), exact.o), tolerance()) << "n " << n;
    }
  }
}

TEST_P(AttendCachedTest, EqualsTheOracleAndAttendForEveryKindOfList) {
  for (const int64_t sinks : {0, 64, 256}) {
    for (const int list_heads : {1, 2}) {
      compare(shape(), {999, 200}, {.list_heads = list_heads, .sinks = sinks, .window = 64, .chunk = 16, .most = 29});
      compare(shape(), {999, 200}, {.list_heads = list_heads, .sinks = sinks, .window = 64, .most = 0});
    }
  }
}

TEST_P(AttendCachedTest, IsTextbookAttentionOverTheContextByRank) {
  const AttentionCase c(shape(), decode_rows({1300}), 22);
  const Input input = c.input();
  const Lists lists = test::random_lists(input.batch, {.sinks = 64, .window = 128, .chunk = 16, .most = 30}, 1);
  const RopeTable rope = c.rope(kPositions);
  const auto got = Decode(body(), c, rope).build_and_attend(input, lists);
  const Context context = context_of(lists.view(), input.batch.blocks[0], 0, 0);
  std::vector<int64_t> tokens;
  for (int64_t rank = 0; rank < context.size(); ++rank) tokens.push_back(context.token(rank));
  ASSERT_TRUE(std::is_sorted(tokens.begin(), tokens.end()));
  ASSERT_EQ(tokens.back(), 1299);
  for (size_t head = 0; head < 6; ++head) {
    const auto exact = test::textbook(c, 0, std::span(input.q).subspan(head * 64, 64), static_cast<int>(head) / 3, tokens);
    EXPECT_LE(test::relative_error(std::span(got).subspan(head * 64, 64), exact.o), tolerance()) << "head " << head;
  }
}

TEST_P(AttendCachedTest, MassIsTheSumOfTextbookProbabilities) {
  const AttentionCase c(shape(), decode_rows({1300, 90, 611}), 22);
  const Input input = c.input();
  const Lists lists = test::random_lists(input.batch, {.sinks = 64, .window = 128, .chunk = 16, .most = 40}, 1);
  const RopeTable rope = c.rope(kPositions);
  Decode decode(body(), c, rope);
  const auto plain = decode.build_and_attend(input, lists);
  for (const int keys : {1, 8, 32}) {
    std::vector<std::vector<float>> watched;
    EXPECT_TRUE(test::same_bits(decode.attend(input, keys, &watched), plain)) << "watching changes nothing";
    for (const int row : {0, 2}) {
      const Context context = context_of(lists.view(), input.batch.blocks[static_cast<size_t>(row)], row, 0);
      std::vector<int64_t> tokens;
      for (int64_t rank = 0; rank < context.size(); ++rank) tokens.push_back(context.token(rank));
      for (int head = 0; head < 6; ++head) {
        const auto at = static_cast<size_t>(row * 6 + head);
        const auto want = test::textbook(c, row, std::span(input.q).subspan(at * 64, 64), head / 3, tokens).mass(keys, context.size());
        const auto own = std::span(watched[static_cast<size_t>(row)]).subspan(static_cast<size_t>(head) * want.size(), want.size());
        EXPECT_LE(test::absolute_error(own, want), tolerance()) << keys << " keys, row " << row << ", head " << head;
        EXPECT_NEAR(std::accumulate(own.begin(), own.end(), 0.0), 1.0, tolerance());
      }
    }
  }
}

TEST_P(AttendCachedTest, KeyByKeyGivesTheBitsOfASetBuiltAtOnce) {
  const AttentionCase c(shape(), decode_rows({660}), 23);
  const RopeTable rope = c.rope(kPositions);
  Input input = c.input();
  const ListSpec spec = {.list_heads = 2, .sinks = 64, .window = 64, .most = 50};
  QueryBlock& block = input.batch.blocks[0];
  block.r0 = 590;
  const Lists lists = test::random_lists(input.batch, spec, 2);  // frozen at 590; the window grows from there
  Decode grown(body(), c, rope);
  grown.build(input, lists, 0);
  for (block.r0 = 591; block.r0 < 660; ++block.r0) {
    const int64_t size = context_of(lists.view(), block, 0, 0).size();
    grown.build(input, lists, 0, size - 1);
    if (block.r0 % 7 != 0 && block.r0 != 659) continue;
    Decode whole(body(), c, rope);
    ASSERT_TRUE(test::same_bits(grown.attend(input), whole.build_and_attend(input, lists))) << "token " << block.r0;
  }
}

TEST_P(AttendCachedTest, AFreshBuildForgetsALargerOne) {
  const AttentionCase c(shape(), decode_rows({900, 300}), 24);
  const RopeTable rope = c.rope(kPositions);
  const Input large = c.alone(0);
  const Input small = c.alone(1);
  Decode used(body(), c, rope);
  used.build_and_attend(large, test::random_lists(large.batch, {.dense = true}, 0));
  const Lists lists = test::random_lists(small.batch, {.dense = true}, 0);
  EXPECT_TRUE(test::same_bits(used.build_and_attend(small, lists), Decode(body(), c, rope).build_and_attend(small, lists)));
}

TEST_P(AttendCachedTest, SameBitsAloneAndForEveryNumberOfThreads) {
  const AttentionCase c(shape(), decode_rows({1200, 1, 530}), 25);
  const RopeTable rope = c.rope(kPositions);
  const Input together = c.input();
  const Lists lists = test::random_lists(together.batch, {.dense = true}, 0);
  const auto batch = Decode(body(), c, rope).build_and_attend(together, lists);
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      EXPECT_TRUE(test::same_bits(Decode(body(), c, rope).build_and_attend(together, lists), batch)) << threads << " threads";
    });
  }
  for (int sequence = 0; sequence < 3; ++sequence) {
    const Input input = c.alone(sequence);
    const auto alone = Decode(body(), c, rope).build_and_attend(input, test::random_lists(input.batch, {.dense = true}, 0));
    const auto from = static_cast<size_t>(sequence) * alone.size();
    EXPECT_TRUE(test::same_bits(alone, std::span(batch).subspan(from, alone.size()))) << "sequence " << sequence;
  }
}

TEST_P(AttendCachedTest, LeavesPrefillRowsAlone) {
  std::vector<SequenceSpec> specs = decode_rows({100});
  specs.push_back({.length = 80, .first_row = 60});
  const AttentionCase c(shape(), specs, 26);
  const RopeTable rope = c.rope(kPositions);
  const Input input = c.input();
  const auto got = Decode(body(), c, rope).build_and_attend(input, test::random_lists(input.batch, {.dense = true}, 0));
  EXPECT_NE(got[0], 7.0F);
  EXPECT_EQ(std::count(got.begin() + 6 * 64, got.end(), 7.0F), static_cast<ptrdiff_t>(got.size()) - 6 * 64);
}

TEST_P(AttendCachedTest, RoomGrowsByHalfAndInTiles) {
  WorkingSet set;
  const KvShape kv = shape().kv();
  ASSERT_TRUE(body().working_set_reserve(kv, 1, set));
  EXPECT_EQ(set.capacity, 32);
  EXPECT_EQ(set.size, 0);
  ASSERT_TRUE(body().working_set_reserve(kv, 1000, set));
  EXPECT_EQ(set.capacity, 1024);
  const std::byte* data = set.data.get();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0U);
  ASSERT_TRUE(body().working_set_reserve(kv, 1024, set));
  EXPECT_EQ(set.data.get(), data);
  ASSERT_TRUE(body().working_set_reserve(kv, 1025, set));
  EXPECT_EQ(set.capacity, 1536);
}

INSTANTIATE_TEST_SUITE_P(Bodies, AttendCachedTest, testing::ValuesIn(test::body_cases()), test::body_case_name);

}  // namespace
}  // namespace bough
