// Rows that select for themselves, decode and a prompt's tail, where a stage names pieces of their own (StagePlan::row_piece) or tokens
// of their own (StagePlan::row_keep), and where the plan lets them select less (row_k).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/prune.h"
#include "support/attention_case.h"

namespace bough {
namespace {

AttentionPlan plan_of(const std::string& stages, const std::string& refresh = "[8,4]") {
  return *parse_plan(R"({"sinks":64,"window":128,"k":64,"first":null,"tail":6,"refresh":)" + refresh + R"(,"stages":)" + stages + "}");
}

// Chunks that each block keeps, and behind them its number of rows.
std::vector<std::vector<int32_t>> lists_of(const AttentionPlan& plan, DType type, int64_t* keys_touched = nullptr) {
  test::CaseShape shape;
  shape.type = type;
  const test::AttentionCase random(
      shape, {{.length = 1500, .first_row = 1499, .decode = true}, {.length = 1300, .first_row = 1210, .tail = 6}}, 5);
  test::Input input = random.input();
  const AttentionSetup setup(plan, shape.kv(), shape.head_shape(), 1024, pick_attention_bodies(type));
  const RopeTable rope = random.rope(setup.rope_positions(0, 4096));
  std::vector<AttentionState> states(2);
  std::vector<AttentionState*> pointers;
  for (AttentionState& state : states) {
    state.layers.resize(static_cast<size_t>(shape.layers));
    pointers.push_back(&state);
  }
  Pruner pruner(&setup);
  const BlockList lists = pruner.run(input.batch, shape.layer, input.q.data(), rope, pointers);
  if (keys_touched != nullptr) *keys_touched = pruner.keys_touched();
  std::vector<std::vector<int32_t>> all;
  for (size_t b = 0; b < input.batch.blocks.size(); ++b) {
    const int32_t* first = lists.start + static_cast<ptrdiff_t>(b) * lists.list_heads * lists.capacity;
    all.emplace_back(first, first + lists.count[b]);
    EXPECT_GT(lists.count[b], 0);
    all.back().push_back(input.batch.blocks[b].rows);
  }
  return all;
}

TEST(RowsByThemselves, SearchByTheirOwnPieces) {
  for (const DType type : {DType::f32, DType::bf16, DType::i8}) {
    const std::string first = R"([{"chunk":32,"query_stride":16,"piece":8},)";
    const auto rounds = lists_of(plan_of(first + R"({"chunk":8,"keep":512,"rounds":1}])"), type);
    for (const int piece : {1, 8}) {
      const std::string one = std::to_string(piece);
      const auto pieces = lists_of(plan_of(first + R"({"chunk":8,"keep":512,"piece":)" + one + "}]"), type);
      const auto both = lists_of(plan_of(first + R"({"chunk":8,"keep":512,"rounds":1,"row_piece":)" + one + "}]"), type);
      ASSERT_EQ(both.size(), 1u + 3u + 6u);
      size_t differ = 0;
      for (size_t b = 0; b < both.size(); ++b) {
        const bool single = both[b].back() == 1;
        EXPECT_EQ(both[b], single ? pieces[b] : rounds[b]) << "block " << b << ", piece " << piece;
        differ += pieces[b] != rounds[b] ? 1 : 0;
      }
      EXPECT_GT(differ, 0u);
    }
  }
}

TEST(RowsByThemselves, KeepAsManyTokensAsTheyAreTold) {
  struct Keeps {
    std::string middle, last;
  };
  for (const DType type : {DType::f32, DType::i8}) {
    const auto lists = [&](const Keeps& keep, const Keeps& of_rows) {
      return lists_of(plan_of(R"([{"chunk":32,"query_stride":16,"piece":8},{"chunk":16,"rounds":1,"keep":)" + keep.middle +
                                  R"(,"row_keep":)" + of_rows.middle + R"(},{"chunk":8,"rounds":1,"row_piece":1,"keep":)" + keep.last +
                                  R"(,"row_keep":)" + of_rows.last + "}]",
                              "[8,4,4]"),
                      type);
    };
    const Keeps common{"512", "256"}, none{"0", "0"};
    const auto blocks = lists(common, none);
    for (const Keeps& own : {Keeps{"768", "512"}, {"512", "384"}, {"256", "128"}}) {
      const auto alone = lists(own, none), both = lists(common, own);
      size_t differ = 0;
      for (size_t b = 0; b < both.size(); ++b) {
        const bool single = both[b].back() == 1;
        EXPECT_EQ(both[b], single ? alone[b] : blocks[b]) << "block " << b << ", " << own.middle << " and " << own.last << " tokens";
        differ += alone[b] != blocks[b] ? 1 : 0;
      }
      EXPECT_GT(differ, 0u) << own.middle << " and " << own.last << " tokens";
    }
  }
}

TEST(RowsByThemselves, SelectNoMoreThanTheyAreTold) {
  const std::string stages = R"([{"chunk":32,"query_stride":16,"piece":8},{"chunk":8,"keep":512,"rounds":1,"row_piece":1}])";
  const auto narrow = [&](int64_t k, int64_t row_k) {
    AttentionPlan plan = plan_of(stages);
    plan.k = k;
    plan.row_k = row_k;
    return lists_of(plan, DType::f32);
  };
  const auto of_blocks = narrow(128, 0), of_rows = narrow(32, 0), both = narrow(128, 32);
  ASSERT_EQ(both.size(), of_blocks.size());
  for (size_t b = 0; b < both.size(); ++b) {
    const bool single = both[b].back() == 1;
    EXPECT_EQ(both[b], single ? of_rows[b] : of_blocks[b]) << "block " << b;
    EXPECT_EQ(both[b].size() - 1, single ? 32u / 8 : 128u / 8) << "block " << b;
  }
  EXPECT_EQ(narrow(128, 256), of_blocks) << "k is the most";
}

TEST(RowsByThemselves, AreCountedAsTheySearch) {
  int64_t rounds = 0, both = 0;
  lists_of(plan_of(R"([{"chunk":32},{"chunk":8,"keep":512,"rounds":1}])"), DType::f32, &rounds);
  lists_of(plan_of(R"([{"chunk":32},{"chunk":8,"keep":512,"rounds":1,"row_piece":1}])"), DType::f32, &both);
  const test::CaseShape shape;
  int64_t longer = 0;
  lists_of(plan_of(R"([{"chunk":32},{"chunk":8,"keep":512,"rounds":1,"row_keep":640}])"), DType::f32, &longer);
  EXPECT_EQ(longer - rounds, int64_t{7} * (128 / 8) * 2 * test::CaseShape().kv_heads) << "7 rows score 16 chunks more by two keys";
  EXPECT_EQ(both - rounds, int64_t{7} * (512 / 8) * (8 - 2) * shape.kv_heads) << "7 rows score every key of 64 chunks in place of two";
}

}  // namespace
}  // namespace bough
