// What pruning costs, counted in keys and not in seconds: how it grows with the text.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "attention/cost.h"
#include "attention/prune.h"
#include "support/attention_case.h"

namespace bough {
namespace {

constexpr int kKvHeads = 2;

class Cost : public testing::Test {
 protected:
  // Keys touched by one layer: a decode step at `length` tokens, or the prefill of all of them.
  int64_t touched(const AttentionPlan& plan, int64_t length, bool decode) {
    const test::CaseShape shape = {.type = DType::f32, .heads = kKvHeads, .kv_heads = kKvHeads, .d = 16, .layers = 1, .layer = 0};
    const test::AttentionCase random(shape, {{.length = length, .first_row = decode ? length - 1 : 0, .decode = decode}}, 5);
    const test::Input input = random.input();
    const AttentionSetup setup(plan, shape.kv(), shape.head_shape(), 8192, pick_attention_bodies(shape.type));
    const RopeTable rope = random.rope(setup.rope_positions(0, length));
    AttentionState state;
    state.layers.resize(1);
    std::vector<AttentionState*> states;
    if (decode) states.push_back(&state);
    Pruner pruner(&setup);
    const BlockList lists = pruner.run(input.batch, 0, input.q.data(), rope, states);
    EXPECT_EQ(int64_t{lists.count[input.nb() - 1]} * lists.chunk, plan.layer(0).k) << "the work was done";
    return pruner.keys_touched();
  }
};

AttentionPlan tree_plan() {
  AttentionPlan plan = *parse_plan("hip");
  plan.tree->k = 128;
  plan.tree->query_stride = 16;
  return plan;
}

// A round touches 2 k keys of each KV head at most, and the number of rounds is the logarithm of a branch.
int64_t most_for_tree(const TreePlan& tree, int64_t candidates) {
  const double branch = static_cast<double>(candidates) / static_cast<double>(tree.k);
  return 2 * tree.k * kKvHeads * (static_cast<int64_t>(std::ceil(std::log2(branch))) + 2);
}

TEST_F(Cost, ADecodeStepOfTheTreeIsLogarithmic) {
  const AttentionPlan plan = tree_plan();
  std::vector<int64_t> keys;
  for (const int64_t length : {4096, 8192, 16384, 32768, 65536}) {
    keys.push_back(touched(plan, length, true));
    EXPECT_LE(keys.back(), most_for_tree(*plan.tree, length - plan.sinks - plan.window)) << length;
    EXPECT_GE(keys.back(), plan.tree->k * kKvHeads * std::bit_width(static_cast<uint64_t>(length / plan.tree->k / 2))) << length;
  }
  // A doubled text costs one more round; snapping the first branches to their grid may add or save another.
  const int64_t round = 2 * plan.tree->k * kKvHeads;
  for (size_t i = 1; i < keys.size(); ++i) {
    EXPECT_LE(keys[i] - keys[i - 1], 2 * round);
    EXPECT_GT(keys[i], keys[i - 1]);
  }
  EXPECT_LE(keys.back() - keys.front(), 5 * round) << "four doublings";
}

TEST_F(Cost, PrefillOfTheTreeIsTLogT) {
  const AttentionPlan plan = tree_plan();
  for (const int64_t length : {4096, 16384, 65536}) {
    int64_t most = 0;
    for (int64_t r0 = 0; r0 < length; r0 += 64) {
      const int64_t candidates = window_start(r0, r0 + 64, plan.sinks, plan.window, plan.tree->key_block) - plan.sinks;
      if (candidates > plan.tree->k) most += most_for_tree(*plan.tree, candidates);
    }
    const int64_t keys = touched(plan, length, false);
    EXPECT_LE(keys, most) << length;
    EXPECT_GE(keys, most / 4) << length;
  }
  // Sixteen times the text: sixteen times the blocks, and each at most log(16) = 4 rounds more than 4,096 tokens need at their end.
  const auto short_text = static_cast<double>(touched(plan, 4096, false)), long_text = static_cast<double>(touched(plan, 65536, false));
  EXPECT_GT(long_text / short_text, 16.0);
  EXPECT_LT(long_text / short_text, 16.0 * 2.5) << "quadratic work would be 256 times as much";
}

// Stage 0 probes every chunk of the text, later stages what was kept: a line with slope probes / chunk, and a constant.
TEST_F(Cost, ADecodeStepOfStagesIsItsFirstStage) {
  AttentionPlan plan = *parse_plan("descent");
  plan.first.reset();
  plan.stages[1].keep = 2048;
  plan.stages[2].keep = 1024;
  plan.k = 512;
  ASSERT_TRUE(validate_plan(plan).ok());
  plan.stages[1].rounds = 1;
  const int64_t later = kKvHeads * (2048 / 16 * 2 + 1024 / 8 * 8);
  for (const int64_t length : {4096, 8192, 16384, 32768, 65536}) {
    const int64_t w0 = window_start(length - 1, length, plan.sinks, plan.window, 8);
    const int64_t chunks = (w0 - plan.sinks + 63) / 64;
    EXPECT_EQ(touched(plan, length, true), kKvHeads * chunks * 14 + later) << length;
  }
}

// plan_cost counts what the Pruner counts.
TEST_F(Cost, IsCountedFromThePlanAlone) {
  for (const std::string name : {"default", "descent", "hip"}) {
    AttentionPlan plan = *parse_plan(name);
    plan.first.reset();
    for (int& interval : plan.refresh) interval = 1;
    if (plan.tree) plan.tree->refresh = 1;
    if (!plan.tree) plan.k = 512, plan.stages.back().keep = 1024;
    ASSERT_TRUE(validate_plan(plan).ok());
    const HeadShape heads{.heads = kKvHeads, .kv_heads = kKvHeads, .head_dim = 16};
    for (const int64_t length : {8192, 65536}) {
      const PlanCost cost = plan_cost(plan, heads, 1, length);
      const auto keys = static_cast<double>(touched(plan, length, true)) / kKvHeads;
      EXPECT_NEAR(cost.keys_scored / keys, 1, plan.tree ? 0.25 : 1e-9) << name << " at " << length;
      EXPECT_EQ(cost.keys_attended, static_cast<double>(plan.sinks + plan.window + plan.layer(0).selected(1)));
    }
    const double four = plan_cost(plan, heads, 1, 131072).search_flops / plan_cost(plan, heads, 1, 32768).search_flops;
    EXPECT_GT(four, name == "hip" ? 4 : 2);
    EXPECT_LT(four, name == "hip" ? 6 : 16) << "T log T for the tree; for stages between the constant stages and the square of the first";
  }
  const HeadShape heads{.heads = 9, .kv_heads = 3, .head_dim = 64};
  const PlanCost dense = plan_cost(*parse_plan("dense"), heads, 30, 32768);
  EXPECT_NEAR(dense.attention_flops, 30.0 * 9 * 4 * 64 * 32768.0 * 32768 / 2, 0.01 * dense.attention_flops);
  EXPECT_EQ(dense.search_flops, 0);
  EXPECT_EQ(dense.keys_attended, 32768);
  EXPECT_EQ(plan_cost(*parse_plan("default"), heads, 30, 1792).search_flops, 0) << "all is seen";
}

}  // namespace
}  // namespace bough
