// bough eval mass: what a selection keeps lies between nothing and the best, and is counted right.
#include "eval/mass_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "attention/observer.h"
#include "eval/corpus.h"
#include "eval/exact_attention.h"
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

// A list that a layer's heads share, a list a KV head: heads add up to their layer, stages lose mass one after the other.
TEST(Mass, HeadsAddUpAndStagesLose) {
  const test::TinyFile file(test::peaked_model());
  for (const std::string lists : {"layer", "kv_head"}) {
    const eval::MassReport report = mass_of(file, std::string(test::kSmallPlan).insert(1, R"("lists":")" + lists + R"(",)"), 960);
    ASSERT_EQ(report.layers.size(), 2u);
    for (const eval::LayerMass& layer : report.layers) {
      ASSERT_EQ(layer.heads.size(), 4u);
      double outside = 0, kept = 0, best = 0, top_kept = 0, top_best = 0;
      for (const eval::MassShares& head : layer.heads) {
        outside += head.outside / 4;
        kept += head.outside * head.kept / 4;
        best += head.outside * head.best / 4;
        top_kept += head.top_kept / 4;
        top_best += head.top_best / 4;
        EXPECT_EQ(head.top_random, layer.heads[0].top_random) << "the selection's share of the chunks, whatever the head";
      }
      EXPECT_NEAR(layer.all.outside, outside, 1e-9);
      EXPECT_NEAR(layer.all.kept, kept / outside, 1e-9);
      EXPECT_NEAR(layer.all.best, best / outside, 1e-9);
      EXPECT_NEAR(layer.all.top_kept, top_kept, 1e-9);
      EXPECT_NEAR(layer.all.top_best, top_best, 1e-9);
      EXPECT_GT(layer.all.top_best, layer.all.top_kept);
      ASSERT_EQ(layer.all.stages.size(), 2u);
      EXPECT_LE(layer.all.stages[0], 1 + 1e-9);
      EXPECT_GT(layer.all.stages[0], layer.all.stages[1]);
      EXPECT_NEAR(layer.all.stages[1], layer.all.kept, 1e-9) << "the last stage is the selection";
    }
    EXPECT_GT(report.keys_searched, 0);
    EXPECT_GT(report.keys_attended, 64 + 128);
    EXPECT_LT(report.keys_attended, 480) << "dense attention's mean over 960 rows";
  }
}

// One block of one head, counted plainly: chunks sorted by mass, each looked up in the list.
TEST(Mass, EqualsPlainCounting) {
  constexpr int64_t length = 448, first_row = 384;  // so short that this is the only block that is pruned
  constexpr size_t head = 2;
  const test::TinyFile file(test::peaked_model());
  const auto engine = file.engine(tree_of(64));
  ASSERT_NE(engine, nullptr);
  const Result<eval::MassReport> report = eval::run_mass(*engine, text_of(2000), {.length = length, .blocks = 1});
  ASSERT_TRUE(report.ok()) << report.status().message();
  eval::MassShares want;
  double found = 0, chunks = 0;
  engine->observe([&](const LayerView& v) {
    for (size_t b = 0; v.layer == 1 && b < v.batch.blocks.size(); ++b) {
      const QueryBlock& block = v.batch.blocks[b];
      if (block.r0 != first_row) continue;
      const std::span selected(v.lists.list(static_cast<int64_t>(b), 0), static_cast<size_t>(v.lists.count[b]));
      std::map<int64_t, double> mass;  // by the chunk's first token
      eval::ExactAttention exact(true);
      exact.load_keys(v, block.seq, static_cast<int>(head) / 2, block.r1());
      for (int row = 7; row < 64; row += 8) {
        const std::span<const float> p = exact.attend(v, block.row + row, static_cast<int>(head));
        for (int64_t t = 64; t < v.lists.w0[b]; ++t) mass[t / 4 * 4] += static_cast<double>(p[static_cast<size_t>(t)]) / 8;
      }
      std::vector<std::pair<double, int64_t>> order;
      for (const auto& [start, m] : mass) {
        want.outside += m;
        order.emplace_back(m, start);
        if (std::find(selected.begin(), selected.end(), start) != selected.end()) want.kept += m;
      }
      std::sort(order.rbegin(), order.rend());
      chunks = static_cast<double>(selected.size());
      for (size_t i = 0; i < selected.size(); ++i) {
        if (std::find(selected.begin(), selected.end(), order[i].second) != selected.end()) found += 1;
      }
    }
  });
  const std::unique_ptr<Session> session = test::session_of(*engine);
  const Result<std::vector<TokenId>> begin = engine->tokenize("", true);
  ASSERT_TRUE(begin.ok());
  std::vector<TokenId> text = *begin;
  const std::vector<TokenId> tokens = test::tiny_text(2000);
  text.insert(text.end(), tokens.begin(), tokens.begin() + length - static_cast<int64_t>(begin->size()));
  ASSERT_TRUE(session->append(text).ok());
  engine->observe({});
  ASSERT_EQ(chunks, 16);
  const eval::MassShares& got = report->layers.at(1).heads.at(head);
  EXPECT_NEAR(got.outside, want.outside, 1e-9);
  EXPECT_NEAR(got.kept, want.kept / want.outside, 1e-9);
  EXPECT_NEAR(got.top_kept, found / chunks, 1e-12);
}

// With one KV head of one query head the exact selection is the head's own heaviest chunks.
TEST(Mass, TheExactSelectionOfOneHeadIsItsHeaviestChunks) {
  TinyModel spec = test::peaked_model();
  spec.heads = spec.kv_heads = 1;
  const test::TinyFile file(spec);
  const eval::MassReport report = mass_of(file, tree_of(64), 960);
  ASSERT_EQ(report.layers.size(), 2u);
  for (const eval::LayerMass& layer : report.layers) EXPECT_EQ(layer.all.top_best, 1.0);
}

// Nothing is selected where the model's own window slides, so there is nothing to measure.
TEST(Mass, LeavesOutLayersWhoseWindowSlides) {
  TinyModel spec = test::peaked_model();
  spec.arch = "gemma2";
  spec.sliding_window = 100;
  const test::TinyFile file(spec);
  const eval::MassReport report = mass_of(file, tree_of(64), 960);
  ASSERT_EQ(report.layers.size(), 1u);
  EXPECT_EQ(report.layers[0].layer, 1);
  EXPECT_GT(report.layers[0].all.kept, 0);
}

TEST(Mass, TablesPutPlansBelowOneAnother) {
  eval::MassRecord a{.plan = "default"}, b{.plan = R"({"mode":"hip","window":128})"};
  const eval::MassShares shares{.outside = 0.5, .kept = 0.25, .best = 0.75, .stages = {0.875}};
  a.report.layers = {{0, shares, {shares, shares}}, {3, shares, {shares, shares}}};
  b.report.layers = {{3, shares, {shares, shares}}};
  const std::vector<eval::MassRecord> records = {a, b};
  const std::string table = eval::mass_table(records, true);
  std::vector<std::string> firsts;
  for (size_t at = 0, end = 0; at < table.size(); at = end + 1) {
    end = table.find('\n', at);
    const std::string line = table.substr(at, end - at);
    firsts.push_back(line.substr(0, line.find("  0.") == std::string::npos ? 6 : 18));
  }
  const std::vector<std::string> want = {"plan 2",
                                         "layer ",
                                         "0     0     defaul",
                                         "0     1     defaul",
                                         "0     all   defaul",
                                         "3     0     defaul",
                                         "3     0     plan 2",
                                         "3     1     defaul",
                                         "3     1     plan 2",
                                         "3     all   defaul",
                                         "3     all   plan 2",
                                         "all   all   defaul",
                                         "all   all   plan 2"};
  EXPECT_EQ(firsts, want) << table;
  EXPECT_NE(table.find(R"(plan 2 is {"mode":"hip","window":128})"), std::string::npos);
  EXPECT_NE(table.find("0.8750"), std::string::npos);
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
