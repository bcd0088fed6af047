// Key summaries: they hold the pages' keys, a search through one gives the bits of a search through the pages, and a sequence that goes
// back forgets what it no longer holds.
#include "steps/key_summary.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/state.h"
#include "steps/kv_row.h"
#include "support/search_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::BodyCase;
using test::Grid;
using test::Input;
using test::ScanSpec;

constexpr int64_t kSinks = 64;

TEST(KeySummary, KeepsAtMostAnEighthOfAChunk) {
  for (const int chunk : {1, 2, 4, 8}) EXPECT_EQ(summary_rounds(chunk), 0) << chunk;
  EXPECT_EQ(summary_rounds(16), 1);
  EXPECT_EQ(summary_rounds(32), 1);
  EXPECT_EQ(summary_rounds(64), 2);
  EXPECT_EQ(summary_rounds(256), 4);
}

SummaryArgs args_of(const AttentionCase& c, int sequence, int chunk, int piece, int64_t chunks) {
  const AttentionBodies* body = pick_attention_bodies(c.shape().type);
  return {c.shape().kv(), c.pages(sequence), c.shape().layer, chunk, piece, kSinks, chunks, body->key_means};
}

void expect_keys_of_pages(const AttentionCase& c, const KeySummary& summary, int chunk) {
  const int d = c.shape().d;
  std::vector<float> held(static_cast<size_t>(d));
  for (int head = 0; head < c.shape().kv_heads; ++head) {
    for (int64_t j = 0; j < summary.chunks; ++j) {
      for (int round = 0; round < summary.rounds; ++round) {
        for (int place = 0; place < 2 << round; ++place) {
          const int64_t n = chunk >> round;
          const int64_t token = kSinks + j * chunk + place / 2 * n + (place % 2 == 0 ? n / 4 : n / 2 + n / 4);
          load_row(summary.key(head, j, summary_node(round, place / 2, place % 2)), summary.type, d, held.data());
          ASSERT_EQ(held, c.key(0, token, head)) << "chunk " << j << ", round " << round << ", place " << place;
        }
      }
    }
  }
}

TEST(KeySummary, HoldsTheKeysOfThePagesHoweverItGrew) {
  for (const DType type : kAllDTypes) {
    for (const int chunk : {16, 64, 256}) {
      SCOPED_TRACE(std::string(name_of(type)) + ", chunk " + std::to_string(chunk));
      const AttentionCase c({.type = type, .d = 96}, {{.length = 4096}}, 71);
      const int64_t most = (4096 - kSinks) / chunk;
      KeySummary summary;
      for (const int64_t chunks : {int64_t{0}, most / 3, most / 3, most - 1, most}) {
        extend_summary(args_of(c, 0, chunk, 0, chunks), summary);
        ASSERT_EQ(summary.chunks, chunks);
      }
      expect_keys_of_pages(c, summary, chunk);
      summary.truncate(kSinks + most / 2 * chunk);
      ASSERT_EQ(summary.chunks, most / 2);
      extend_summary(args_of(c, 0, chunk, 0, most), summary);
      expect_keys_of_pages(c, summary, chunk);
    }
  }
}

TEST(KeySummary, GoesBackWithTheSequence) {
  const AttentionCase c({}, {{.length = 2048}}, 72);
  AttentionState state;
  state.layers.resize(1);
  LayerState& layer = state.layers[0];
  extend_summary(args_of(c, 0, 64, 0, 20), layer.summary);
  state.restart(2000);
  EXPECT_EQ(layer.summary.chunks, 20);
  state.restart(kSinks + 5 * 64 + 63);  // the sixth chunk lacks its last token
  EXPECT_EQ(layer.summary.chunks, 5);
  state.restart(10);
  EXPECT_EQ(layer.summary.chunks, 0);
}

class SummaryScan : public testing::TestWithParam<BodyCase> {};

TEST_P(SummaryScan, GivesTheBitsOfThePages) {
  const AttentionBodies& body = test::body_named(GetParam().body);
  const std::vector<test::SequenceSpec> rows = {{.length = 4000, .first_row = 3999, .decode = true},
                                                {.length = 4290, .first_row = 4222, .tail = 3}};
  for (const int chunk : {8, 16, 64, 256}) {
    for (const Scan kind : {Scan::relative, Scan::chunk_indexed, Scan::infllm, Scan::dynamic_extend}) {
      const AttentionCase c({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32}, rows, 73);
      const Input input = c.input();
      const int rounds = kind == Scan::infllm ? 1 : 0;
      const ScanSpec spec = {.chunk = chunk, .sinks = kSinks, .most = 300, .stride = 4, .scan = kind, .limit = 1024, .rounds = rounds};
      const Grid grid = candidates_of(input.batch, spec);
      const RopeTable rope = c.rope(4400);
      const auto through_pages = scan(body, c, input, grid, rope);
      // One sequence with all of its chunks, one with some: the last tile of 32 is mixed.
      std::vector<KeySummary> summaries(2);
      extend_summary(args_of(c, 0, chunk, 0, grid.count[0]), summaries[0]);
      extend_summary(args_of(c, 1, chunk, 0, grid.count[1] * 2 / 3), summaries[1]);
      const KeySummary* const pointers[] = {&summaries[0], &summaries[1]};
      EXPECT_TRUE(test::same_bits(scan(body, c, input, grid, rope, pointers), through_pages)) << chunk;
      const KeySummary* const one[] = {nullptr, &summaries[1]};
      EXPECT_TRUE(test::same_bits(scan(body, c, input, grid, rope, one), through_pages)) << chunk;
    }
  }
}

TEST_P(SummaryScan, HoldsTheMeansOfPieces) {
  const AttentionBodies& body = test::body_named(GetParam().body);
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed, Scan::self_extend}) {
    for (const auto& [chunk, piece] : {std::pair{64, 8}, {8, 8}, {16, 2}}) {
      const AttentionCase c({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32},
                            {{.length = 4000, .first_row = 3999, .decode = true}, {.length = 4290, .first_row = 4222, .tail = 3}}, 73);
      const Input input = c.input();
      const Grid grid =
          test::candidates_of(input.batch, {.chunk = chunk, .sinks = kSinks, .most = 300, .scan = kind, .limit = 1024, .piece = piece});
      const RopeTable rope = c.rope(4400);
      std::vector<KeySummary> summaries(2);
      for (int sequence = 0; sequence < 2; ++sequence) {
        KeySummary& summary = summaries[static_cast<size_t>(sequence)];
        extend_summary(args_of(c, sequence, chunk, piece, 10), summary);
        extend_summary(args_of(c, sequence, chunk, piece, grid.count[static_cast<size_t>(sequence)] * 2 / 3), summary);
        EXPECT_EQ(summary.nodes(), chunk / piece);
      }
      const KeySummary* const pointers[] = {&summaries[0], &summaries[1]};
      EXPECT_TRUE(test::same_bits(scan(body, c, input, grid, rope, pointers), scan(body, c, input, grid, rope))) << chunk;
      if (chunk < 16) continue;
      const Grid later = test::candidates_of(
          input.batch, {.chunk = chunk / 2, .sinks = kSinks, .grid = false, .most = 150, .scan = kind, .limit = 1024, .piece = piece});
      EXPECT_TRUE(test::same_bits(scan(body, c, input, later, rope, pointers), scan(body, c, input, later, rope))) << "listed, " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, SummaryScan, testing::ValuesIn(test::body_cases()), test::body_case_name);

}  // namespace
}  // namespace bough
