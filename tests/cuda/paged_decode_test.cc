// PagedAttention::decode: every step against the oracle that keeps the same schedule, and the same bits in every company.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "attention/refresh.h"
#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

constexpr int kSteps = 20;

// Steps beside what they should be. A step may miss it where a choice that its context depends on was close; most must not.
class Comparison {
 public:
  explicit Comparison(const Oracle& oracle) : case_(oracle.paged_case()), allowed_(oracle.exact() ? 0.1 : 0.4) {}
  ~Comparison() {
    testing::Test::RecordProperty("missed", missed_);
    EXPECT_LE(missed_, allowed_ * steps_) << "of " << steps_ << " steps, after close choices";
  }

  void add(const Output& got, const Output& want, bool doubtful, const std::string& what) {
    steps_ += 1;
    const bool misses = worst_distance(case_, got, want) > output_tolerance(case_);
    if (misses && doubtful) {
      missed_ += 1;
      return;
    }
    expect_near(case_, got, want, output_tolerance(case_), what);
  }

 private:
  const PagedCase& case_;
  double allowed_;
  int steps_ = 0;
  int missed_ = 0;
};

std::vector<DecodeOracle> oracles_of(const Oracle& oracle) {
  std::vector<DecodeOracle> oracles;
  for (size_t i = 0; i < oracle.paged_case().spec().texts.size(); ++i) oracles.emplace_back(oracle, static_cast<int>(i));
  return oracles;
}

class PagedDecode : public testing::TestWithParam<PagedSpec> {};

// Text i joins at step i, so that one launch has rows at different steps of their own.
TEST_P(PagedDecode, EveryStepEqualsTheOracle) {
  const PagedCase c(GetParam(), kSteps);
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  std::vector<DecodeOracle> oracles = oracles_of(oracle);
  DecodeRun decode(c, run, 7);
  Comparison comparison(oracle);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<DecodeRow> rows;
    for (int i = 0; i < static_cast<int>(oracles.size()) && i <= step; ++i) {
      rows.push_back({i, c.spec().texts[static_cast<size_t>(i)].length + step - i, step - i, (3 * i + 1) % 7});
    }
    const Output out = decode.step(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      const DecodeOracle::Step want = oracles[i].step(rows[i].length);
      comparison.add(rows_of(out, c.shape(), static_cast<int64_t>(i), 1), want.out, want.doubtful,
                     "text " + std::to_string(i) + ", its step " + std::to_string(rows[i].counter));
    }
  }
}

// With every stage at every step nothing is kept: a step is a prefill of one row.
TEST_P(PagedDecode, RefreshedAlwaysItIsAPrefillOfOneRow) {
  PagedSpec spec = GetParam();
  for (int& interval : spec.plan.refresh) interval = 1;
  if (spec.plan.tree) spec.plan.tree->refresh = 1;
  const PagedCase c(std::move(spec), 5);
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  std::vector<DecodeOracle> oracles = oracles_of(oracle);
  DecodeRun decode(c, run, 5);
  Comparison comparison(oracle);
  for (int step = 0; step < 5; ++step) {
    std::vector<DecodeRow> rows;
    std::vector<Part> parts;
    for (int i = 0; i < static_cast<int>(oracles.size()); ++i) {
      rows.push_back({i, c.spec().texts[static_cast<size_t>(i)].length + step, step, i});
      parts.push_back({i, rows.back().length, 1});
    }
    const Output decoded = decode.step(rows), read = run.prefill(parts).out;
    for (size_t i = 0; i < oracles.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      comparison.add(rows_of(decoded, c.shape(), row, 1), rows_of(read, c.shape(), row, 1), oracles[i].step(rows[i].length).doubtful,
                     "text " + std::to_string(i) + ", step " + std::to_string(step));
    }
  }
}

// Of each text and step of its own, when they are decoded together, each text `apart` steps after the one before.
using Steps = std::map<std::pair<int, int64_t>, Output>;
Steps decode_all(const PagedCase& c, const PagedRun& run, const std::vector<int>& texts, int apart, int slots,
                 const std::function<int(int)>& slot) {
  DecodeRun decode(c, run, slots);
  Steps steps;
  for (int64_t step = 0; step < kSteps + apart * static_cast<int64_t>(texts.size()); ++step) {
    std::vector<DecodeRow> rows;
    for (size_t i = 0; i < texts.size(); ++i) {
      const int64_t own = step - apart * static_cast<int64_t>(i);
      if (own < 0 || own >= kSteps) continue;
      rows.push_back({texts[i], c.spec().texts[static_cast<size_t>(texts[i])].length + own, own, slot(texts[i])});
    }
    if (rows.empty()) continue;
    const Output out = decode.step(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      steps[{rows[i].text, rows[i].counter}] = rows_of(out, c.shape(), static_cast<int64_t>(i), 1);
    }
  }
  return steps;
}

void expect_same_steps(const Steps& got, const Steps& want, const std::string& what) {
  for (const auto& [at, out] : got) {
    ASSERT_TRUE(same_bits(out, want.at(at))) << what << ": text " << at.first << ", its step " << at.second;
  }
}

TEST_P(PagedDecode, BitsDependOnTheTextAlone) {
  const PagedCase c(GetParam(), kSteps);
  BOUGH_MAKE_RUN(run, c);
  std::vector<int> texts(c.spec().texts.size());
  std::iota(texts.begin(), texts.end(), 0);
  const Steps together = decode_all(c, run, texts, 0, 5, [](int text) { return text; });
  const std::vector<int> reversed(texts.rbegin(), texts.rend());
  expect_same_steps(decode_all(c, run, reversed, 3, 9, [](int text) { return (4 * text + 5) % 9; }), together,
                    "other slots and neighbours");
  for (const int text : texts) expect_same_steps(decode_all(c, run, {text}, 0, 1, [](int) { return 0; }), together, "alone");
}

INSTANTIATE_TEST_SUITE_P(Grid, PagedDecode, testing::ValuesIn(decode_grid()), spec_name);

// A conversation of one text in slot 0.
class PagedConversation : public testing::Test {
 protected:
  static PagedSpec spec(std::vector<Text> texts) {
    PagedSpec spec = decode_grid().front();
    spec.texts = std::move(texts);
    return spec;
  }
};

// `count` steps of a text from its length `first` on.
void converse(DecodeRun& decode, DecodeOracle& oracle, Comparison& comparison, int text, int64_t first, int count) {
  for (int64_t step = 0; step < count; ++step) {
    const Output out = decode.step({{text, first + step, step, 0}});
    ASSERT_EQ(oracle.counter(), step);
    const DecodeOracle::Step want = oracle.step(first + step);
    comparison.add(out, want.out, want.doubtful, "text " + std::to_string(text) + " at " + std::to_string(first + step));
  }
}

TEST_F(PagedConversation, AnAppendOrARollbackStartsAgain) {
  const PagedCase c(spec({{1300, 1}}), 300);
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  DecodeOracle text(oracle, 0);
  DecodeRun decode(c, run, 1);
  Comparison comparison(oracle);
  converse(decode, text, comparison, 0, 1300, 7);
  for (const int64_t length : {1400, 1250, 300, 1500}) {
    text.restart(length - 1);
    converse(decode, text, comparison, 0, length, 9);
  }
}

// What another text has left in a slot is not seen, whether or not the new one searches at its first step.
TEST_F(PagedConversation, ASlotServesOneTextAfterAnother) {
  for (const Positions positions : {Positions::rank, Positions::infllm}) {
    PagedSpec one = spec({{1300, 1}, {443, 1}, {60, 1}});
    one.plan.positions = positions;
    const PagedCase c(std::move(one), 30);
    BOUGH_MAKE_RUN(run, c);
    const Oracle oracle(c);
    DecodeRun decode(c, run, 1);
    Comparison comparison(oracle);
    for (const int i : {0, 1, 2, 0, 2, 1}) {
      DecodeOracle text(oracle, i);
      converse(decode, text, comparison, i, c.spec().texts[static_cast<size_t>(i)].length, 21);
    }
  }
}

// The first search of a text that outgrows what is seen whole comes when any stage is due.
TEST_F(PagedConversation, OutgrowsWhatIsSeenWhole) {
  for (const int64_t first : {433, 440, 443, 446, 448, 449}) {
    const PagedCase c(spec({{first, 1}}), 30);
    BOUGH_MAKE_RUN(run, c);
    const Oracle oracle(c);
    DecodeOracle text(oracle, 0);
    DecodeRun decode(c, run, 1);
    Comparison comparison(oracle);
    converse(decode, text, comparison, 0, first, 20);
  }
}

TEST_F(PagedConversation, ARowOfNoLengthIsLeftOut) {
  const PagedCase c(spec({{1300, 1}, {100, 1}, {700, 1}}), 8);
  BOUGH_MAKE_RUN(run, c);
  DecodeRun some(c, run, 3), all(c, run, 3);
  for (int step = 0; step < 8; ++step) {
    const std::vector<DecodeRow> rows = {{0, 1300 + step, step, 2}, {1, 100 + step, step, 0}, {2, 700 + step, step, 1}};
    std::vector<DecodeRow> part = rows;
    part[1].length = 0;
    const Output got = some.step(part), want = all.step(rows);
    for (const int64_t row : {0, 2}) EXPECT_TRUE(same_bits(rows_of(got, c.shape(), row, 1), rows_of(want, c.shape(), row, 1))) << row;
    for (const float x : rows_of(got, c.shape(), 1, 1).o) ASSERT_TRUE(std::isnan(x)) << "an output was written";
  }
}

TEST_F(PagedConversation, SinkLogitsTakeTheirShare) {
  const PagedCase c(spec({{1300, 1}, {1, 1}, {447, 1}}), 6);
  BOUGH_MAKE_RUN(run, c);
  DecodeRun plain(c, run, 3), with(c, run, 3);
  const std::vector<float> logits = c.sink_logits();
  const auto d = static_cast<size_t>(c.shape().head_dim);
  for (int step = 0; step < 6; ++step) {
    const std::vector<DecodeRow> rows = {{0, 1300 + step, step, 2}, {1, 1 + step, step, 0}, {2, 447 + step, step, 1}};
    Output want = plain.step(rows);
    const Output got = with.step(rows, true);
    for (size_t row = 0; row < want.lse.size(); ++row) {
      const double logit = logits[row % logits.size()], lse = want.lse[row];
      const double sum = std::max(logit, lse) + std::log1p(std::exp(-std::abs(logit - lse)));
      for (size_t i = 0; i < d; ++i) want.o[row * d + i] *= static_cast<float>(std::exp(lse - sum));
      want.lse[row] = static_cast<float>(sum);
    }
    expect_near(c, got, want, output_tolerance(c), "step " + std::to_string(step));
  }
}

TEST_F(PagedConversation, StagesAreDueAsThePlanSays) {
  const PagedCase c(spec({{1300, 1}}), 100);
  BOUGH_MAKE_RUN(run, c);
  const PagedAttention& attention = run.attention();
  ASSERT_EQ(attention.stages(), 3);
  for (int64_t counter = 0; counter < 64; ++counter) {
    EXPECT_EQ(attention.due_stage(counter, 2000 + counter), first_refreshed_stage(c.spec().plan.refresh, counter)) << counter;
  }
  // 448 tokens are seen whole; stages are due at every second step, and the first search that is due runs them all.
  EXPECT_EQ(attention.due_stage(2, 449), 0);
  EXPECT_EQ(attention.due_stage(2, 450), 0);
  EXPECT_EQ(attention.due_stage(3, 450), attention.stages());
  EXPECT_EQ(attention.due_stage(4, 451), 1);
}

}  // namespace
}  // namespace bough::test
