// Plans whose layers differ: each layer is pruned by its own plan, and buffers follow the text and not the plan's numbers.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/prune.h"
#include "support/attention_case.h"
#include "support/plans.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::plan_of;
using test::tiny_text;

// kSmallPlan with more fields.
AttentionPlan small_plan(const std::string& more) {
  std::string text = test::kSmallPlan;
  return plan_of(text.insert(text.size() - 1, more));
}

// The logits of a prompt with a tail, of an append and of decode steps in between and after.
std::vector<float> converse(const AttentionPlan& plan, int layers) {
  TinyModel model = test::peaked_model();
  model.layers = layers;
  test::TinyForward forward(model, plan, DType::f32);
  const std::vector<TokenId> text = tiny_text(600);
  const auto sequence = forward.sequence();
  std::vector<float> seen;
  const auto step = [&](int64_t count, bool decode, int64_t tail, int64_t rows) {
    const auto from = static_cast<size_t>(sequence->length());
    const auto tokens = std::span(text).subspan(from, static_cast<size_t>(count));
    const Slice slice{sequence.get(), tokens, decode, sequence->length() + count - tail, rows};
    const std::vector<float> logits = forward.step({&slice, 1});
    seen.insert(seen.end(), logits.begin(), logits.end());
  };
  step(460, false, 64, 100);
  for (int i = 0; i < 9; ++i) step(1, true, 0, 1);
  step(50, false, 50, 50);
  for (int i = 0; i < 9; ++i) step(1, true, 0, 1);
  return seen;
}

// One layer, told by name to be another: the same as the other plan.
TEST(PruneLayers, AnOverrideIsThePlanThatItDescribes) {
  struct Pair {
    std::string override, plan;
  };
  const std::vector<Pair> pairs = {
      {R"("mode":"streaming","window":192)", R"({"mode":"streaming","sinks":64,"window":192,"refresh":[2],"tail":64})"},
      {R"("k":32,"scan":"relative")", test::kSmallPlan},
      {R"("window":192,"sinks":128,"stages":[{"chunk":16},{"chunk":4,"keep":128}])", test::kSmallPlan},
      {R"("mode":"hip","tree":{"k":64,"refresh":4})",
       R"({"mode":"hip","sinks":64,"window":128,"tree":{"k":64,"refresh":4},"scan":"relative","tail":64})"}};
  for (const Pair& pair : pairs) {
    const AttentionPlan named = small_plan(R"(,"layers":[{"layers":[0],)" + pair.override + "}]");
    AttentionPlan other = plan_of(pair.plan);
    if (other.mode == Mode::stages) {
      const LayerPlan l = named.layer(0);
      other.sinks = l.sinks;
      other.window = l.window;
      other.stages = l.stages;
      other.k = l.k;
      other.scan = l.scan;
      other.first.reset();
    }
    ASSERT_TRUE(validate_plan(other).ok()) << validate_plan(other).message();
    const std::vector<float> got = converse(named, 1);
    EXPECT_TRUE(test::same_bits(got, converse(other, 1))) << pair.override;
    EXPECT_FALSE(test::same_bits(got, converse(small_plan(""), 1))) << pair.override << ": otherwise nothing is shown";
  }
}

TEST(PruneLayers, DenseLayersAmongPrunedOnes) {
  const AttentionPlan all = small_plan(R"(,"layers":[{"layers":[0,1],"mode":"dense"}])");
  const std::vector<float> dense = converse(AttentionPlan{}, 2);
  EXPECT_LE(test::relative_error(converse(all, 2), dense), 1e-5);
  const std::vector<float> half = converse(small_plan(R"(,"layers":[{"layers":[1],"mode":"dense"}])"), 2);
  EXPECT_GT(test::relative_error(half, dense), 1e-3);
  EXPECT_FALSE(test::same_bits(half, converse(small_plan(""), 2)));
}

// A keep of 2^31 tokens, the most there is, asks for no more memory than the text has chunks.
TEST(PruneLayers, BuffersFollowTheTextAndNotTheKeep) {
  std::vector<std::vector<float>> results;
  for (const char* keep : {"512", "2147483648"}) {
    const std::string two = R"("stages":[{"chunk":32,"query_stride":4},{"chunk":8,"keep":)" + std::string(keep) + "}]";
    results.push_back(converse(plan_of(R"({"sinks":64,"window":128,"k":64,"first":null,"refresh":[4,2],)" + two + "}"), 2));
  }
  EXPECT_TRUE(test::same_bits(results[0], results[1])) << "600 tokens are all kept by either";
}

}  // namespace
}  // namespace bough
