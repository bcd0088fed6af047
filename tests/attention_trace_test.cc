// What bough inspect --attention shows: exact attention by the formula, parts that add up, marks where the tokens are.
#include "eval/attention_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "attention/observer.h"
#include "eval/svg_attention.h"
#include "steps/kv_row.h"
#include "support/tiny_engine.h"
#include "support/xml.h"

namespace bough::eval {
namespace {

constexpr int64_t kLength = 900;

// Three stages in the second layer, none that keeps everything.
constexpr const char* kPlan =
    R"({"mode":"stages","sinks":64,"window":128,"stages":[{"chunk":32},{"chunk":16,"keep":320},{"chunk":8,"keep":160}],)"
    R"("k":96,"first":null,"refresh":[4,2,1],"tail":64})";

class Trace : public testing::Test {
 protected:
  AttentionTrace trace(Engine& engine, const TraceOptions& options, int64_t length = kLength) {
    const Result<AttentionTrace> made = trace_attention(engine, test::tiny_text(length), options);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return made.ok() ? *made : AttentionTrace{};
  }

  test::TinyFile file_{test::peaked_model()};
};

int64_t tokens_in(const std::vector<TokenRun>& runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t{0}, [](int64_t n, const TokenRun& r) { return n + r.end - r.begin; });
}

bool holds(const std::vector<TokenRun>& runs, int64_t token) {
  return std::any_of(runs.begin(), runs.end(), [&](const TokenRun& r) { return r.begin <= token && token < r.end; });
}

// <R(p) q, R(t) k> in double, by the difference of positions alone.
std::vector<double> textbook(const LayerView& v, int64_t row, int head) {
  const HeadShape& heads = v.setup.heads;
  const RopeParams& rope = v.rope.params();
  const int64_t p = v.batch.positions[static_cast<size_t>(row)];
  const float* q = v.q + (row * heads.heads + head) * heads.head_dim;
  std::vector<double> scores;
  std::vector<float> k(static_cast<size_t>(heads.head_dim));
  for (int64_t t = 0; t <= p; ++t) {
    const size_t offset = v.setup.kv.k_offset(v.layer, head / heads.group());
    load_row(v.batch.sequences[0].row(t, offset, v.setup.kv.row_bytes()), v.setup.kv.type, heads.head_dim, k.data());
    double score = 0;
    for (size_t i = 0; i < rope.frequencies.size(); ++i) {
      const double angle = static_cast<double>(p - t) * rope.frequencies[i];
      const double a = q[2 * i], b = q[2 * i + 1], c = k[2 * i], d = k[2 * i + 1];
      score += (a * c + b * d) * std::cos(angle) + (a * d - b * c) * std::sin(angle);
    }
    scores.push_back(score * heads.scale);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - top);
  for (double& s : scores) s /= sum;
  return scores;
}

TEST_F(Trace, MassIsTheTextbookSoftmax) {
  const auto engine = file_.engine(kPlan);
  ASSERT_NE(engine, nullptr);
  for (const int64_t query : {3, 700, 899}) {
    const AttentionTrace got = trace(*engine, {.layer = 1, .head = 2, .query = query, .progress = {}});
    std::vector<double> want;
    engine->observe([&](const LayerView& v) {
      const auto row = std::find(v.batch.positions.begin(), v.batch.positions.end(), query);
      if (v.layer == 1 && row != v.batch.positions.end()) want = textbook(v, row - v.batch.positions.begin(), 2);
    });
    ASSERT_TRUE(test::session_of(*engine)->append(test::tiny_text(kLength), {.will_sample = true}).ok());
    engine->observe({});
    ASSERT_EQ(got.mass.size(), want.size());
    EXPECT_TRUE(got.true_positions);
    for (size_t t = 0; t < want.size(); ++t) ASSERT_NEAR(got.mass[t], want[t], 2e-5) << "query " << query << ", key " << t;
  }
}

// What is printed as missed is one less what the context holds, and each stage keeps a part of the one before.
TEST_F(Trace, PartsAddUpAndStagesNarrow) {
  for (const std::string lists : {"layer", "kv_head"}) {
    const auto engine = file_.engine(std::string(kPlan).insert(1, R"("lists":")" + lists + R"(",)"));
    ASSERT_NE(engine, nullptr);
    for (const int64_t query : {640, 650, 899}) {
      const AttentionTrace t = trace(*engine, {.layer = 1, .head = 3, .query = query, .progress = {}});
      const AttentionShares s = attention_shares(t, 1000);
      EXPECT_NEAR(s.missed, 1 - (s.sinks + s.selected + s.window), 1e-5);
      EXPECT_GT(s.missed, 0);
      EXPECT_NEAR(s.outside, s.selected + s.missed, 1e-9);
      EXPECT_EQ(tokens_in(t.sinks), 64);
      EXPECT_EQ(tokens_in(t.selected), 96);
      EXPECT_EQ(t.window.at(0).end, query + 1);
      ASSERT_EQ(t.stages.size(), 3u);
      EXPECT_EQ(t.stages[2].kept, t.selected);
      EXPECT_EQ(tokens_in(t.stages[1].kept), 160);
      for (int64_t token = 0; token <= query; ++token) {
        const int parts = holds(t.sinks, token) + holds(t.selected, token) + holds(t.window, token);
        EXPECT_LE(parts, 1) << "token " << token;
        for (size_t i = 1; i < 3; ++i) EXPECT_LE(holds(t.stages[i].kept, token), holds(t.stages[i - 1].kept, token)) << "token " << token;
      }
      double missed = 0;
      for (const MissedBlock& b : s.blocks) {
        missed += b.mass;
        EXPECT_FALSE(holds(t.selected, b.tokens.begin));
      }
      EXPECT_NEAR(missed, s.missed, 1e-9);
      EXPECT_TRUE(std::is_sorted(s.blocks.begin(), s.blocks.end(), [](const auto& a, const auto& b) { return a.mass > b.mass; }));
      EXPECT_EQ(attention_shares(t, 2).blocks.size(), 2u);
    }
  }
}

TEST_F(Trace, PlansWithoutStages) {
  const auto dense = file_.engine("dense"), tree = file_.engine(test::kSmallTree);
  const auto streaming = file_.engine(R"({"mode":"streaming","sinks":64,"window":128})");
  ASSERT_TRUE(dense != nullptr && tree != nullptr && streaming != nullptr);
  const TraceOptions options{.layer = 1, .head = 0, .query = 899, .progress = {}};
  const AttentionShares all = attention_shares(trace(*dense, options), 5);
  EXPECT_NEAR(all.window, 1, 1e-5);
  EXPECT_EQ(all.missed, 0);
  EXPECT_TRUE(all.blocks.empty());
  const AttentionTrace little = trace(*streaming, options);
  EXPECT_TRUE(little.selected.empty());
  EXPECT_GT(attention_shares(little, 5).missed, 0);
  const AttentionTrace searched = trace(*tree, options);
  EXPECT_TRUE(searched.stages.empty());
  EXPECT_EQ(tokens_in(searched.selected), 64);
}

TEST_F(Trace, SlidingWindowsHideWhatIsBeforeThem) {
  TinyModel spec = test::peaked_model();
  spec.arch = "gemma2";
  spec.sliding_window = 100;
  const test::TinyFile file(spec);
  const auto engine = file.engine(kPlan);
  ASSERT_NE(engine, nullptr);
  const AttentionTrace t = trace(*engine, {.layer = 0, .head = 1, .query = 700, .progress = {}});
  EXPECT_EQ(t.window, std::vector<TokenRun>({{601, 701}}));
  const AttentionShares s = attention_shares(t, 5);
  EXPECT_NEAR(s.window, 1, 1e-5);
  EXPECT_EQ(s.missed, 0);
}

TEST_F(Trace, RefusesWhatIsNotThere) {
  const auto engine = file_.engine(kPlan);
  ASSERT_NE(engine, nullptr);
  const auto message = [&](const TraceOptions& options, int64_t length = 100) {
    const Result<AttentionTrace> made = trace_attention(*engine, test::tiny_text(length), options);
    EXPECT_EQ(made.status().code(), Code::invalid_argument);
    return made.status().message();
  };
  EXPECT_EQ(message({.layer = 2, .progress = {}}), "the layer is 2, it must be 0 to 1");
  EXPECT_EQ(message({.head = 4, .progress = {}}), "the head is 4, it must be 0 to 3");
  EXPECT_EQ(message({.query = 100, .progress = {}}), "the query's position is 100, it must be 0 to 99");
  EXPECT_EQ(message({}, 0), "the text has no tokens");
  const Result<AttentionTrace> stopped =
      trace_attention(*engine, test::tiny_text(5000), {.query = 4999, .progress = [](const Progress&) { return false; }});
  EXPECT_EQ(stopped.status().code(), Code::cancelled);
}

// Pixels follow from the drawn axis, whose ticks say where two tokens are.
TEST_F(Trace, BlocksAreDrawnWhereTheirTokensAre) {
  const auto engine = file_.engine(kPlan);
  ASSERT_NE(engine, nullptr);
  const AttentionTrace t = trace(*engine, {.layer = 1, .head = 2, .query = 899, .progress = {}});
  const AttentionShares s = attention_shares(t, 4);
  const Result<test::XmlElement> root =
      test::parse_xml(draw_attention(t, s, {"a <title> & more", "sub", {"\"one\"", "two\x01", "<3>", "4"}}));
  ASSERT_TRUE(root.ok()) << root.status().message();
  const std::vector<const test::XmlElement*> ticks = root->find("text", "tick");
  ASSERT_GE(ticks.size(), 2u);
  const double x0 = ticks.front()->number("x"), t0 = std::stod(ticks.front()->text);
  const double each = (ticks.back()->number("x") - x0) / (std::stod(ticks.back()->text) - t0);
  const auto expect_at = [&](const test::XmlElement& rect, const TokenRun& run) {
    EXPECT_NEAR(rect.number("x"), x0 + (static_cast<double>(run.begin) - t0) * each, 0.02);
    EXPECT_NEAR(rect.number("width"), static_cast<double>(run.end - run.begin) * each, 0.02);
  };
  std::vector<TokenRun> context = t.sinks;
  context.insert(context.end(), t.selected.begin(), t.selected.end());
  context.insert(context.end(), t.window.begin(), t.window.end());
  const auto drawn = root->find("rect", "context");
  ASSERT_EQ(drawn.size(), context.size());
  for (size_t i = 0; i < drawn.size(); ++i) expect_at(*drawn[i], context[i]);
  const auto top = root->find("rect", "top");
  ASSERT_EQ(top.size(), 4u);
  for (size_t i = 0; i < top.size(); ++i) expect_at(*top[i], s.blocks[i].tokens);
  size_t kept = 1;  // one in the legend
  for (const StageTrace& stage : t.stages) kept += stage.kept.size();
  EXPECT_EQ(root->find("rect", "stage").size(), kept);
}

}  // namespace
}  // namespace bough::eval
