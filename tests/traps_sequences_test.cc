// Traps that show in whole models: several sequences side by side, and text that is only a little longer than the window.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/plans.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::same_bits;
using test::tiny_text;
using test::TinyForward;

constexpr std::array<int64_t, 3> kLengths = {300, 461, 273};

// What is added to kSmallPlan.
constexpr const char* kPlans[] = {"", R"(,"lists":"kv_head")", R"(,"layers":[{"layers":[1],"mode":"hip","tree":{"k":64,"refresh":3}}])"};

AttentionPlan small_plan(const std::string& more = "") {
  std::string text = test::kSmallPlan;
  return test::plan_of(text.insert(text.size() - 1, more));
}

// Three sequences of different lengths over one model.
class Talks {
 public:
  explicit Talks(TinyForward& forward) : forward_(forward) {
    for (size_t i = 0; i < kLengths.size(); ++i) {
      sequences_.push_back(forward.sequence());
      texts_.push_back(tiny_text(1000, 30 + i));
    }
  }

  // One step of the sequences `which`, in this order: all of their text, or one more token. The logits of each one's last `rows` rows.
  std::vector<std::vector<float>> step(const std::vector<size_t>& which, bool decode, int64_t rows = 1) {
    std::vector<Slice> slices;
    for (const size_t i : which) {
      const auto from = static_cast<size_t>(sequences_[i]->length());
      const size_t count = decode ? 1 : static_cast<size_t>(kLengths[i]);
      slices.push_back({sequences_[i].get(), std::span<const TokenId>(texts_[i]).subspan(from, count), decode, INT64_MAX, rows});
    }
    const std::vector<float> logits = forward_.step(slices);
    std::vector<std::vector<float>> each;
    const auto width = static_cast<ptrdiff_t>(logits.size() / which.size());
    for (auto at = logits.begin(); at != logits.end(); at += width) each.emplace_back(at, at + width);
    return each;
  }

 private:
  TinyForward& forward_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<std::vector<TokenId>> texts_;
};

class TrapsOfSequences : public testing::TestWithParam<DType> {};

// (a) All sequences of a prefill batch are taken to be equally long.
TEST_P(TrapsOfSequences, PrefillsOfDifferentLengths) {
  for (const char* more : kPlans) {
    TinyForward forward(test::peaked_model(), small_plan(more), GetParam());
    const auto together = Talks(forward).step({0, 1, 2}, false, 200);
    const auto reversed = Talks(forward).step({2, 1, 0}, false, 200);
    for (size_t i = 0; i < 3; ++i) {
      const auto alone = Talks(forward).step({i}, false, 200);
      EXPECT_TRUE(same_bits(together[i], alone[0])) << "sequence " << i;
      EXPECT_TRUE(same_bits(reversed[2 - i], alone[0])) << "sequence " << i << " in another order";
    }
  }
}

// What each sequence sees alone, decode step by step.
std::vector<std::vector<std::vector<float>>> alone(TinyForward& forward, int steps) {
  std::vector<std::vector<std::vector<float>>> seen(3);
  for (size_t i = 0; i < 3; ++i) {
    Talks talks(forward);
    talks.step({i}, false);
    for (int s = 0; s < steps; ++s) seen[i].push_back(talks.step({i}, true)[0]);
  }
  return seen;
}

// Steps of the sequences that each entry names, in its order.
void expect_as_alone(const AttentionPlan& plan, DType type, const std::vector<std::vector<size_t>>& schedule) {
  TinyForward forward(test::peaked_model(), plan, type);
  const auto expected = alone(forward, static_cast<int>(schedule.size()));
  Talks talks(forward);
  talks.step({0, 1, 2}, false);
  std::array<size_t, 3> next = {};
  for (size_t s = 0; s < schedule.size(); ++s) {
    const auto got = talks.step(schedule[s], true);
    for (size_t row = 0; row < got.size(); ++row) {
      const size_t i = schedule[s][row];
      ASSERT_TRUE(same_bits(got[row], expected[i][next[i]++])) << "step " << s << ", sequence " << i;
    }
  }
}

// (b) With more than one row decode takes the first row's lists or counters for all.
TEST_P(TrapsOfSequences, DecodeOfManyRows) {
  for (const char* more : kPlans) {
    expect_as_alone(small_plan(more), GetParam(), std::vector<std::vector<size_t>>(10, {0, 1, 2}));
  }
}

// (m) What decode keeps between steps belongs to a row of the batch: rows that merge, leave, return and change places mix it up.
TEST_P(TrapsOfSequences, RowsChangePlacesBetweenSteps) {
  for (const char* more : kPlans) {
    expect_as_alone(small_plan(more), GetParam(),
                    {{0, 1, 2}, {2, 0}, {1}, {1, 2, 0}, {0}, {2, 1}, {2, 1, 0}, {0, 2}, {1}, {1, 0}, {0, 1, 2}, {2, 0, 1}, {0}, {1, 2}});
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TrapsOfSequences, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return name_of(info.param); });

// (e) Positions that count slots collapse where the text is longer than the window and shorter than all that may be seen: there
// attention has to be dense, in every mode that has positions of its own.
TEST(Traps, FromTheWindowToTheWholeContextItIsDense) {
  for (const Positions positions : {Positions::rank, Positions::streaming, Positions::infllm, Positions::dynamic_extend}) {
    AttentionPlan plan = small_plan();
    plan.positions = positions;
    TinyForward pruned(test::peaked_model(), plan, DType::f32), dense(test::peaked_model(), AttentionPlan{}, DType::f32);
    const std::vector<TokenId> text = tiny_text(400);
    const auto read = [&text](TinyForward& forward, int64_t prefill, int64_t length) {
      const auto sequence = forward.sequence();
      const Slice slice{sequence.get(), std::span(text).first(static_cast<size_t>(prefill)), false, INT64_MAX, prefill};
      std::vector<float> logits = forward.step({&slice, 1});
      while (sequence->length() < length) {
        const Slice one{sequence.get(), std::span(text).subspan(static_cast<size_t>(sequence->length()), 1), true, INT64_MAX, 1};
        const std::vector<float> more = forward.step({&one, 1});
        logits.insert(logits.end(), more.begin(), more.end());
      }
      return logits;
    };
    const int64_t whole = plan.sinks + plan.window + plan.k;
    for (const int64_t length : {plan.window + 1, plan.sinks + plan.window + 1, whole}) {
      EXPECT_TRUE(same_bits(read(pruned, length, length), read(dense, length, length))) << length;
    }
    EXPECT_TRUE(same_bits(read(pruned, whole - 40, whole), read(dense, whole - 40, whole)));
    EXPECT_FALSE(same_bits(read(pruned, 400, 400), read(dense, 400, 400))) << "otherwise nothing is shown";
  }
}

}  // namespace
}  // namespace bough
