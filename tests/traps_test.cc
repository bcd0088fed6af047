// Traps that implementations of this attention are known to fall into, each shown to be absent: pruning and decode attention of one
// layer, over random or planted keys. Those of several sequences are in traps_sequences_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "attention/decode.h"
#include "attention/prune.h"
#include "support/attention_case.h"
#include "support/plans.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Input;
using test::plan_of;
using test::relative_error;
using test::SequenceSpec;
using testing::HasSubstr;

constexpr int64_t kRopePositions = 8192;

// Two stages; 8 tokens stay in play after the first for each one that is selected.
AttentionPlan two_stages(int chunk, int64_t window, int64_t k, const std::string& more = "") {
  return plan_of(R"({"sinks":64,"window":)" + std::to_string(window) + R"(,"stages":[{"chunk":)" + std::to_string(chunk) +
                 R"(,"query_stride":4},{"chunk":8,"keep":)" + std::to_string(8 * k) + R"(}],"k":)" + std::to_string(k) +
                 R"(,"first":null,"refresh":[4,2])" + more + "}");
}

// Pruning and decode attention of one layer.
class Layer {
 public:
  Layer(const AttentionPlan& plan, const CaseShape& shape, const std::string& body = "", int64_t trained = kRopePositions)
      : setup_(plan, shape.kv(), shape.head_shape(), trained, pick_attention_bodies(shape.type, body)), shape_(shape), pruner_(&setup_) {}

  // Every query block's lists; decode rows begin anew.
  BlockList prune(const Batch& batch, const std::vector<float>& q, const RopeTable& rope) {
    states_ = std::vector<AttentionState>(static_cast<size_t>(batch.decode_rows));
    pointers_.clear();
    for (AttentionState& state : states_) {
      state.layers.resize(static_cast<size_t>(shape_.layers));
      pointers_.push_back(&state);
    }
    return pruner_.run(batch, shape_.layer, q.data(), rope, pointers_);
  }

  // The outputs of a batch of decode rows, [t, hq, d].
  std::vector<float> decode(const Batch& batch, const std::vector<float>& q, const RopeTable& rope) {
    const BlockList lists = prune(batch, q, rope);
    const Status status = renew_working_sets(setup_, batch, shape_.layer, lists, pruner_.refreshed(), rope, pointers_);
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<const WorkingSet*> sets;
    for (const AttentionState& state : states_) sets.push_back(&state.layers[static_cast<size_t>(shape_.layer)].set);
    std::vector<float> o(q.size());
    auto args = test::args_of<AttendCachedArgs>(shape_, batch, q, rope);
    args.sets = sets.data();
    args.o = o.data();
    setup_.bodies->attend_cached(args);
    return o;
  }

  const LayerState& state(size_t row) const { return states_[row].layers[static_cast<size_t>(shape_.layer)]; }

 private:
  AttentionSetup setup_;
  CaseShape shape_;
  Pruner pruner_;
  std::vector<AttentionState> states_;
  std::vector<AttentionState*> pointers_;
};

std::vector<int32_t> list_of(const BlockList& lists, int64_t block, int head) {
  const int32_t* start = lists.list(block, head);
  return {start, start + lists.count[block]};
}

std::vector<std::vector<int32_t>> all_lists(const BlockList& lists, const Batch& batch) {
  std::vector<std::vector<int32_t>> all;
  for (size_t b = 0; b < batch.blocks.size(); ++b) all.push_back(list_of(lists, static_cast<int64_t>(b), 0));
  return all;
}

// `count` chunk starts from `from` on.
std::vector<int32_t> run_of(int32_t from, int chunk, size_t count) {
  std::vector<int32_t> starts(count);
  for (size_t i = 0; i < count; ++i) starts[i] = from + static_cast<int32_t>(i) * chunk;
  return starts;
}

class Traps : public test::BodyTest {
 protected:
  double tolerance() const { return GetParam().type == DType::f32 ? 1e-5 : 2e-2; }
};

std::vector<int64_t> tokens_of(const LayerState& layer, int head, int chunk, int64_t length) {
  const Context context{64,
                        layer.selected.data() + static_cast<ptrdiff_t>(head) * layer.selected_count,
                        int64_t{layer.selected_count} * chunk,
                        chunk,
                        layer.w0,
                        length};
  std::vector<int64_t> tokens;
  for (int64_t rank = 0; rank < context.size(); ++rank) tokens.push_back(context.token(rank));
  return tokens;
}

// (c) Decode attention reads the first head's list for every head.
TEST_P(Traps, EveryKvHeadDecodesItsOwnList) {
  const CaseShape shape = this->shape();
  const std::vector<SequenceSpec> rows = {{.length = 900, .first_row = 899, .decode = true},
                                          {.length = 701, .first_row = 700, .decode = true}};
  const AttentionCase c(shape, rows, 71);
  const Input input = c.input();
  Layer layer(two_stages(32, 128, 64, R"(,"lists":"kv_head")"), shape, GetParam().body);
  const std::vector<float> o = layer.decode(input.batch, input.q, c.rope(kRopePositions));
  for (int row = 0; row < 2; ++row) {
    const LayerState& state = layer.state(static_cast<size_t>(row));
    const auto first = tokens_of(state, 0, 8, rows[static_cast<size_t>(row)].length);
    const auto second = tokens_of(state, 1, 8, rows[static_cast<size_t>(row)].length);
    ASSERT_NE(first, second) << "otherwise nothing is shown";
    for (int head = 0; head < shape.heads; ++head) {
      const size_t at = static_cast<size_t>(int64_t{row * shape.heads + head} * shape.d);
      const auto q = std::span(input.q).subspan(at, static_cast<size_t>(shape.d));
      const auto got = std::span(o).subspan(at, static_cast<size_t>(shape.d));
      const int kv_head = head / 3;
      EXPECT_LE(relative_error(got, textbook(c, row, q, kv_head, kv_head == 0 ? first : second).o), tolerance());
      EXPECT_GT(relative_error(got, textbook(c, row, q, kv_head, kv_head == 0 ? second : first).o), 2 * tolerance());
    }
  }
}

// (d) Removing equal neighbours removes everything when there is one chunk or all scores are equal.
TEST_P(Traps, EqualScoresAndSingleChunksAreKept) {
  const CaseShape shape = this->shape();
  AttentionCase c(shape, {{.length = 900, .first_row = 899, .decode = true}, {.length = 640, .first_row = 512}}, 72);
  const std::vector<float> key(static_cast<size_t>(shape.d), 0.25F);
  for (int sequence = 0; sequence < 2; ++sequence) {
    for (int64_t token = 0; token < c.pages(sequence).length; ++token) {
      for (int head = 0; head < shape.kv_heads; ++head) c.set_key(sequence, token, head, key);
    }
  }
  const Input input = c.input();
  for (const int64_t k : {8, 64}) {
    Layer layer(two_stages(32, 128, k), shape, GetParam().body);
    const BlockList lists = layer.prune(input.batch, input.q, c.rope(kRopePositions));
    for (int64_t b = 0; b < input.nb(); ++b) {
      EXPECT_EQ(list_of(lists, b, 0), run_of(64, 8, static_cast<size_t>(k / 8))) << "of equal scores the lower start wins; block " << b;
    }
  }
  const AttentionCase shortest(shape, {{.length = 201, .first_row = 200, .decode = true}}, 73);
  const Input one = shortest.input();
  Layer layer(two_stages(32, 128, 8), shape, GetParam().body);
  const BlockList lists = layer.prune(one.batch, one.q, shortest.rope(kRopePositions));
  EXPECT_EQ(list_of(lists, 0, 0), std::vector<int32_t>{64}) << "the only candidate";
}

// (f) A window no longer than a chunk lets scans read keys beyond the query. Refused; at the least window no later key matters.
TEST_P(Traps, NoScanReadsKeysBeyondItsQueries) {
  EXPECT_THAT(parse_plan(R"({"window":64,"refresh":[4,2,1]})").status().message(), HasSubstr("at least twice stages[0].chunk, 128"));
  const CaseShape shape = this->shape();
  for (const char* scan : {R"(,"scan":"relative")", R"(,"scan":"chunk-indexed")"}) {
    AttentionCase c(shape, {{.length = 768, .first_row = 320}}, 74);
    const Input input = c.input();
    const RopeTable rope = c.rope(kRopePositions);
    AttentionPlan plan = two_stages(64, 128, 64, scan);
    plan.stages[1].keep = 128;
    Layer layer(plan, shape, GetParam().body);
    const auto before = all_lists(layer.prune(input.batch, input.q, rope), input.batch);
    auto random = test::random_of(75, 0, 0);
    for (int64_t token = 448; token < 768; ++token) {
      std::vector<float> key = test::normal_floats(random, shape.d);
      for (float& x : key) x *= 100;
      for (int head = 0; head < shape.kv_heads; ++head) c.set_key(0, token, head, key);
    }
    const auto after = all_lists(layer.prune(input.batch, input.q, rope), input.batch);
    ASSERT_EQ(input.nb(), 7);
    EXPECT_EQ(after[0], before[0]);
    EXPECT_EQ(after[1], before[1]) << "ends at 448";
    EXPECT_NE(after[6], before[6]) << "otherwise nothing is shown";
  }
}

// (g) A window of 777 means something else than a window of 777.
TEST_P(Traps, NoWindowIsASign) {
  const CaseShape shape = this->shape();
  const AttentionCase c(shape, {{.length = 1500, .first_row = 1499, .decode = true}, {.length = 1500, .first_row = 1372}}, 76);
  const Input input = c.input();
  for (const int64_t window : {776, 777, 778}) {
    AttentionPlan plan = two_stages(8, window / 8 * 8, 32);
    plan.stages[1].chunk = 1;
    plan.window = window;
    ASSERT_TRUE(validate_plan(plan).ok()) << validate_plan(plan).message();
    Layer layer(plan, shape, GetParam().body);
    const BlockList lists = layer.prune(input.batch, input.q, c.rope(kRopePositions));
    for (size_t b = 0; b < input.batch.blocks.size(); ++b) {
      EXPECT_EQ(lists.w0[b], input.batch.blocks[b].r0 + 1 - window) << "block " << b;
      EXPECT_EQ(lists.count[b], 32) << "block " << b;
    }
  }
}

// (h) Starts rounded down to multiples of a chunk counted from 0, where chunks are counted from the sinks.
TEST_P(Traps, ChunksAreCountedFromTheSinks) {
  EXPECT_THAT(parse_plan(R"({"sinks":100})").status().message(), HasSubstr("multiple of the page size"));
  EXPECT_THAT(parse_plan(R"({"sinks":64,"stages":[{"chunk":128}],"refresh":[4]})").status().message(),
              HasSubstr("sinks is 64, must be a multiple of the last chunk 128"));
  const CaseShape shape = this->shape();
  AttentionCase c(shape, {{.length = 1400, .first_row = 1399, .decode = true}}, 77);
  Input input = c.input();
  std::fill(input.q.begin(), input.q.end(), 1.0F);
  const std::vector<float> low(static_cast<size_t>(shape.d), -1.0F), high(static_cast<size_t>(shape.d), 1.0F);
  for (int64_t token = 0; token < 1400; ++token) {
    const bool in_third = token >= 64 + 3 * 128 && token < 64 + 4 * 128;
    for (int head = 0; head < shape.kv_heads; ++head) c.set_key(0, token, head, in_third ? high : low);
  }
  AttentionPlan plan = two_stages(128, 256, 128);
  plan.stages[1].keep = 128;
  ASSERT_TRUE(validate_plan(plan).ok()) << validate_plan(plan).message();
  Layer layer(plan, shape, GetParam().body);
  const BlockList lists = layer.prune(input.batch, input.q, c.rope(kRopePositions, 0));
  EXPECT_EQ(list_of(lists, 0, 0), run_of(64 + 3 * 128, 8, 16)) << "one chunk of the first stage, all of it";
}

// (i) The index of a chunk follows from the longest context that was configured, so that settings move the keys.
TEST_P(Traps, ChunkIndicesComeFromThePresentLength) {
  const CaseShape shape = this->shape();
  const AttentionCase c(shape, {{.length = 1500, .first_row = 1499, .decode = true}, {.length = 1400, .first_row = 1300}}, 78);
  const Input input = c.input();
  const RopeTable rope = c.rope(kRopePositions);
  const AttentionPlan plan = two_stages(16, 128, 64, R"(,"scan":"chunk-indexed")");
  std::vector<std::vector<std::vector<int32_t>>> lists;
  for (const int64_t trained : {4096, 1 << 20, 128}) {
    Layer layer(plan, shape, GetParam().body, trained);
    lists.push_back(all_lists(layer.prune(input.batch, input.q, rope), input.batch));
  }
  EXPECT_EQ(lists[0], lists[1]);
  EXPECT_NE(lists[0], lists[2]) << "otherwise nothing is shown: here indices are divided";
}

// (j) 90,000,000 as "no token" among ids of token * heads: 12 million tokens of 8 heads have more. The text is 5 pages over and over.
TEST_P(Traps, TwelveMillionTokensOfEightHeads) {
  const CaseShape shape = {.type = GetParam().type, .heads = 8, .kv_heads = 8, .d = 32, .layers = 1, .layer = 0};
  AttentionCase c(shape, {{.length = 320}}, 79);
  const std::vector<float> hot(32, 1.0F), cold(32, -1.0F);
  for (int64_t token = 0; token < 320; ++token) {
    for (int head = 0; head < 8; ++head) c.set_key(0, token, head, token >= 256 && head == 7 ? hot : cold);
  }
  constexpr int64_t length = 12'000'000;
  constexpr int64_t hot_start = 64 + 1024 * 11'686;  // a chunk of the first stage
  static_assert(hot_start * 8 > 90'000'000);
  std::vector<std::byte*> pages;
  for (int64_t t = 0; t < length; t += kPageTokens)
    pages.push_back(c.pages(0).pages[t >= hot_start && t < hot_start + 1024 ? 4 : t / kPageTokens % 4]);
  Batch batch;
  batch.ids = {0};
  batch.positions = {length - 1};
  batch.row_seq = {0};
  batch.sequences = {{pages.data(), length}};
  batch.blocks = {{0, 0, 1, length - 1}};
  batch.decode_rows = 1;
  const AttentionPlan plan =
      plan_of(R"({"sinks":64,"window":2048,"stages":[{"chunk":1024},{"chunk":64,"keep":65536},{"chunk":8,"keep":8192}],"k":256,)"
              R"("first":null,"refresh":[8,4,2],"lists":"kv_head"})");
  Layer layer(plan, shape, GetParam().body);
  const std::vector<float> q(256, 2.0F);
  const std::vector<float> o = layer.decode(batch, q, c.rope(kRopePositions, 0));
  const LayerState& state = layer.state(0);
  ASSERT_EQ(state.selected_count, 32);
  EXPECT_EQ(std::vector<int32_t>(state.selected.begin() + 7 * 32, state.selected.end()), run_of(hot_start, 8, 32));
  EXPECT_EQ(std::vector<int32_t>(state.selected.begin(), state.selected.begin() + 32), run_of(64, 8, 32)) << "all alike";
  EXPECT_EQ(state.w0, (length - 2048) / 8 * 8);
  std::vector<float> mean(32);
  for (int64_t token = 256; token < 320; ++token) {
    const std::vector<float> v = c.value(0, token, 7);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += v[i] / 64;
  }
  EXPECT_LE(relative_error(std::span(o).subspan(size_t{7} * 32), mean), tolerance()) << "nothing but the hot keys has weight";
}

// (k) Layer 31 is special because the first model had 32.
TEST_P(Traps, NoLayerIsSpecialByItsNumber) {
  for (const std::string& name : preset_names()) {
    const AttentionPlan plan = plan_of(name);
    const int first = plan.first ? plan.first->layers : 0;
    for (int i = 0; i < 1024; ++i) ASSERT_EQ(plan.layer(i), plan.layer(i < first ? 0 : 1023)) << name << ", layer " << i;
  }
  std::vector<std::vector<std::vector<int32_t>>> lists;
  for (const int index : {3, 17, 31, 39}) {
    const CaseShape shape = {.type = GetParam().type, .heads = 2, .kv_heads = 1, .d = 32, .layers = 40, .layer = index};
    const AttentionCase c(shape, {{.length = 700, .first_row = 699, .decode = true}, {.length = 640, .first_row = 512}}, 80);
    const Input input = c.input();
    Layer layer(two_stages(32, 128, 64), shape, GetParam().body);
    lists.push_back(all_lists(layer.prune(input.batch, input.q, c.rope(kRopePositions)), input.batch));
    EXPECT_EQ(lists.back(), lists.front()) << "layer " << index;
  }
}

// (l) The element type of the cache is guessed from its storage.
TEST_P(Traps, TheCacheIsReadByItsType) {
  const CaseShape shape = this->shape();
  const AttentionCase c(shape, {{.length = 190, .first_row = 189, .decode = true}}, 81);
  const Input input = c.input();
  Layer layer(two_stages(32, 128, 64), shape, GetParam().body);
  const std::vector<float> o = layer.decode(input.batch, input.q, c.rope(kRopePositions));
  std::vector<int64_t> tokens(190);
  std::iota(tokens.begin(), tokens.end(), int64_t{0});
  for (int head = 0; head < shape.heads; ++head) {
    const size_t at = static_cast<size_t>(head * shape.d);
    const auto q = std::span(input.q).subspan(at, static_cast<size_t>(shape.d));
    EXPECT_LE(relative_error(std::span(o).subspan(at, q.size()), textbook(c, 0, q, head / 3, tokens).o), tolerance()) << "head " << head;
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, Traps, testing::ValuesIn(test::body_cases()), test::body_case_name);

}  // namespace
}  // namespace bough
