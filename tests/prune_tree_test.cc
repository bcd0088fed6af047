// Layers in mode hip: the tree inside the Pruner, in decode and mixed with stages by layer.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "attention/prune.h"
#include "support/attention_case.h"
#include "support/conversation.h"

namespace bough {
namespace {

using test::Conversation;
using test::relative_error;

// Pruned from 64 + 128 + 48 + 1 tokens on.
AttentionPlan tree_plan(int refresh, Lists lists, Scan scan = Scan::relative) {
  AttentionPlan plan = *parse_plan("hip");
  plan.window = 128;
  plan.tree = TreePlan{.k = 48, .key_block = 4, .refresh = refresh};
  plan.tail = 8;
  plan.lists = lists;
  plan.scan = scan;
  return plan;
}

// Layer 0 prunes in stages, layer 1 by the tree.
AttentionPlan mixed_plan(std::vector<int> stages, int tree, Lists lists) {
  AttentionPlan plan = *parse_plan(test::kSmallPlan);
  plan.first.reset();
  plan.refresh = std::move(stages);
  plan.lists = lists;
  LayerOverride hip;
  hip.layers = {1};
  hip.mode = Mode::hip;
  hip.tree = TreePlan{.k = 48, .key_block = 4, .refresh = tree};
  plan.layers = {hip};
  return plan;
}

void expect_valid(const AttentionPlan& plan) {
  const Status status = validate_plan(plan);
  ASSERT_TRUE(status.ok()) << status.message();
}

class PruneTree : public testing::TestWithParam<Lists> {};

// Sinks, a selection of whole key blocks before the window, ascending, k tokens of it; a list for each list head.
void expect_well_formed(const LayerState& layer, const AttentionSetup& setup, int index, const std::string& what) {
  const LayerPlan& plan = setup.layer(index);
  const auto heads = static_cast<size_t>(setup.list_heads());
  ASSERT_EQ(int64_t{layer.selected_count} * plan.tree.key_block, plan.tree.k) << what;
  ASSERT_EQ(layer.selected.size(), heads * static_cast<size_t>(layer.selected_count)) << what;
  for (size_t h = 0; h < heads; ++h) {
    const auto list =
        std::span(layer.selected).subspan(h * static_cast<size_t>(layer.selected_count), static_cast<size_t>(layer.selected_count));
    ASSERT_TRUE(std::is_sorted(list.begin(), list.end(), std::less_equal<>())) << what;
    ASSERT_GE(list.front(), plan.sinks) << what;
    ASSERT_LE(list.back() + plan.tree.key_block, layer.w0) << what;
    for (const int32_t start : list) ASSERT_EQ(start % plan.tree.key_block, 0) << what;
  }
}

TEST_P(PruneTree, SearchesAtItsIntervalAndFreezesBetween) {
  const AttentionPlan plan = tree_plan(6, GetParam());
  expect_valid(plan);
  test::TinyForward forward(test::peaked_model(), plan, DType::f32);
  Conversation c(forward, 640);
  int changed = 0;
  std::vector<int32_t> before;
  int64_t w0 = 0;
  for (int64_t step = 0; step < 60; ++step) {
    c.decode();
    const LayerState& layer = c.layer(1);
    expect_well_formed(layer, forward.setup(), 1, "step " + std::to_string(step));
    if (step % 6 == 0) {
      w0 = window_start(c.length() - 1, c.length(), plan.sinks, plan.window, plan.tree->key_block);
      changed += layer.selected != before ? 1 : 0;
      before = layer.selected;
    }
    ASSERT_EQ(layer.selected, before) << "step " << step;
    ASSERT_EQ(layer.w0, w0) << "step " << step;
    ASSERT_EQ(layer.set.size, plan.sinks + plan.tree->k + c.length() - w0) << "each new token is appended";
    ASSERT_LE(layer.set.size, plan.context_tokens());
  }
  EXPECT_GT(changed, 3) << "a search finds other keys as the text goes on";
}

// A search at every step is how one-row appends before sampling are read.
TEST_P(PruneTree, SearchingAlwaysEqualsNoCaching) {
  for (const Scan scan : {Scan::relative, Scan::chunk_indexed, Scan::self_extend}) {
    const AttentionPlan plan = tree_plan(1, GetParam(), scan);
    expect_valid(plan);
    test::TinyForward cached(test::peaked_model(), plan, DType::f32), plain(test::peaked_model(), plan, DType::f32);
    Conversation a(cached, 600), b(plain, 600);
    for (int step = 0; step < 25; ++step) EXPECT_LE(relative_error(a.decode(), b.append_one()), 1e-5) << "step " << step;
  }
}

// After an append nothing is taken from before it.
TEST_P(PruneTree, AnAppendRestartsTheInterval) {
  const AttentionPlan plan = tree_plan(8, GetParam());
  test::TinyForward forward(test::peaked_model(), plan, DType::f32);
  Conversation c(forward, 640);
  for (int step = 0; step < 3; ++step) c.decode();
  c.append_one();
  EXPECT_EQ(c.layer(1).holds, LayerState::Holds::nothing);
  c.decode();
  EXPECT_EQ(c.layer(1).w0, window_start(c.length() - 1, c.length(), plan.sinks, plan.window, plan.tree->key_block));
}

TEST_P(PruneTree, LayersOfBothKindsKeepTheirOwnIntervals) {
  const AttentionPlan plan = mixed_plan({4, 2}, 3, GetParam());
  expect_valid(plan);
  test::TinyForward forward(test::peaked_model(), plan, DType::f32);
  Conversation c(forward, 640);
  for (int64_t step = 0; step < 24; ++step) {
    c.decode();
    const int64_t stage_step = c.length() - step % 2, tree_step = c.length() - step % 3;
    ASSERT_EQ(c.layer(0).w0, window_start(stage_step - 1, stage_step, 64, 128, 8)) << "step " << step;
    ASSERT_EQ(c.layer(1).w0, window_start(tree_step - 1, tree_step, 64, 128, 4)) << "step " << step;
    ASSERT_EQ(int64_t{c.layer(0).selected_count} * 8, 64);
    expect_well_formed(c.layer(1), forward.setup(), 1, "step " + std::to_string(step));
  }
}

TEST_P(PruneTree, LayersOfBothKindsEqualNoCaching) {
  const AttentionPlan plan = mixed_plan({1, 1}, 1, GetParam());
  test::TinyForward cached(test::peaked_model(), plan, DType::f32), plain(test::peaked_model(), plan, DType::f32);
  Conversation a(cached, 600), b(plain, 600);
  for (int step = 0; step < 25; ++step) EXPECT_LE(relative_error(a.decode(), b.append_one()), 1e-5) << "step " << step;
}

INSTANTIATE_TEST_SUITE_P(ListKinds, PruneTree, testing::Values(Lists::layer, Lists::kv_head),
                         [](const auto& info) { return info.param == Lists::layer ? "layer" : "kv_head"; });

// In a model of one layer a key depends on its token alone, so a step equals a dense one that reads nothing but the context.
TEST(PruneTreeContext, DecodeAttendsExactlyItsContext) {
  TinyModel spec = test::peaked_model();
  spec.layers = 1;
  const AttentionPlan plan = tree_plan(3, Lists::layer);
  test::TinyForward forward(spec, plan, DType::f32), dense(spec, AttentionPlan{}, DType::f32);
  Conversation c(forward, 500);
  for (int step = 0; step < 12; ++step) {
    const std::vector<float> logits = c.decode();
    const LayerState& layer = c.layer(0);
    const Context context{plan.sinks, layer.selected.data(), plan.tree->k, plan.tree->key_block, layer.w0, c.length()};
    std::vector<TokenId> tokens;
    for (int64_t rank = 0; rank < context.size(); ++rank) tokens.push_back(c.tokens()[static_cast<size_t>(context.token(rank))]);
    const auto sequence = dense.sequence();
    const Slice slice{sequence.get(), tokens, false, INT64_MAX, 1};
    EXPECT_LE(relative_error(logits, dense.step({&slice, 1})), 1e-5) << "step " << step;
  }
}

}  // namespace
}  // namespace bough
