// bough eval mass: what a selection keeps lies between nothing and the best, and is counted right.
#include "eval/mass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "eval/corpus.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

eval::Corpus text_of(int64_t tokens) { return {"tiny", test::tiny_text(tokens), false}; }

std::string tree_of(int64_t k, const std::string& more = "") {
  return R"({"mode":"hip","sinks":64,"window":128,"tree":{"k":)" + std::to_string(k) + R"(,"key_block":4})" + more + "}";
}

eval::MassReport mass_of(const test::TinyFile& file, const std::string& plan, int64_t length, DType kv = DType::f32) {
  const auto engine = file.engine(plan, kv);
  if (engine == nullptr) return {};
  const Result<eval::MassReport> report = eval::run_mass(*engine, text_of(2000), {.length = length, .blocks = 4});
  EXPECT_TRUE(report.ok()) << report.status().message();
  return report.ok() ? *report : eval::MassReport{};
}

TEST(Mass, SelectionsLieBetweenNothingAndTheBest) {
  const test::TinyFile file(test::peaked_model());
  const std::string plans[] = {test::kSmallPlan, tree_of(64), tree_of(64, R"(,"lists":"kv_head")"),
                               tree_of(64, R"(,"scan":"chunk-indexed")")};
  for (const std::string& plan : plans) {
    for (const int64_t length : {960, 1500}) {
      const eval::MassReport report = mass_of(file, plan, length);
      ASSERT_EQ(report.layers.size(), 2u) << plan;
      EXPECT_EQ(report.blocks, 4);
      EXPECT_EQ(report.true_positions, length <= 1024);
      for (const eval::LayerMass& layer : report.layers) {
        const eval::MassShares& m = layer.all;
        EXPECT_GT(m.outside, 0.0) << plan;
        EXPECT_LT(m.outside, 1.0) << plan;
        EXPECT_GT(m.kept, 0.0) << plan;
        EXPECT_LE(m.kept, m.best + 1e-9) << plan << ", layer " << layer.layer;
        EXPECT_LE(m.best, 1.0 + 1e-9) << plan;
        EXPECT_GT(m.random, 0.0) << plan;
        EXPECT_LT(m.random, m.best) << plan;
      }
      const double low = std::min(report.layers[0].all.kept, report.layers[1].all.kept),
                   high = std::max(report.layers[0].all.kept, report.layers[1].all.kept);
      EXPECT_GE(report.all.kept, low);
      EXPECT_LE(report.all.kept, high);
    }
  }
}

// Twice the tokens: more mass, and a random selection keeps exactly twice as much.
TEST(Mass, GrowsWithTheSelection) {
  const test::TinyFile file(test::peaked_model());
  // dense_below puts the sampled blocks of both at the same places.
  const eval::MassReport few = mass_of(file, tree_of(32, R"(,"dense_below":500)"), 960);
  const eval::MassReport many = mass_of(file, tree_of(64, R"(,"dense_below":500)"), 960);
  EXPECT_GT(many.all.kept, few.all.kept);
  EXPECT_GT(many.all.best, few.all.best);
  ASSERT_EQ(few.layers.size(), many.layers.size());
  EXPECT_NEAR(many.layers[0].all.random, 2 * few.layers[0].all.random, 1e-9) << "the first layer's queries and keys are the same";
  EXPECT_NEAR(many.layers[0].all.outside, few.layers[0].all.outside, 1e-9);
}

// The first layer's queries are the same; its keys are rounded.
TEST(Mass, HardlyDependsOnTheKvType) {
  const test::TinyFile file(test::peaked_model());
  const eval::MassReport exact = mass_of(file, test::kSmallPlan, 960);
  ASSERT_EQ(exact.layers.size(), 2u);
  for (const DType kv : {DType::bf16, DType::i8, DType::i4}) {
    const eval::MassReport report = mass_of(file, test::kSmallPlan, 960, kv);
    ASSERT_EQ(report.layers.size(), 2u) << name_of(kv);
    const double tolerance = kv == DType::i4 ? 0.03 : 0.005;
    EXPECT_NEAR(report.layers[0].all.outside, exact.layers[0].all.outside, tolerance) << name_of(kv);
    EXPECT_NEAR(report.layers[0].all.best, exact.layers[0].all.best, tolerance) << name_of(kv);
  }
}

TEST(Mass, RefusesWhatPrunesNothing) {
  const test::TinyFile file(test::peaked_model());
  const auto engine = file.engine(tree_of(64)), dense = file.engine("dense");
  ASSERT_TRUE(engine != nullptr && dense != nullptr);
  const auto message = [](Engine& e, const eval::Corpus& corpus, const eval::MassOptions& options) {
    const Result<eval::MassReport> report = eval::run_mass(e, corpus, options);
    EXPECT_EQ(report.status().code(), Code::invalid_argument);
    return report.ok() ? "" : report.status().message();
  };
  EXPECT_EQ(message(*engine, text_of(2000), {.length = 300}),
            "a text of 300 tokens is too short: with this attention plan at least 448 are needed for anything to be pruned");
  EXPECT_NE(message(*engine, text_of(400), {.length = 900}).find("400"), std::string::npos);
  EXPECT_EQ(message(*dense, text_of(2000), {.length = 900}),
            "the attention plan selects nothing: its mode has to be stages or hip in some layer");
  EXPECT_EQ(message(*engine, text_of(2000), {.length = 900, .blocks = 0}), "blocks is 0, must be at least 1");
}

}  // namespace
}  // namespace bough
