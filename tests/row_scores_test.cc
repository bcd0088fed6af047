// Scores of keys where they lie: every instruction set of this CPU against products in double, for every type that fits, and the bits of a
// run's score whatever is scored with it.
#include "cpu/row_scores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hwy/highway.h"
#include "steps/kv_row.h"
#include "support/attention_case.h"

namespace bough::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

class RowScores : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ops_ = row_score_ops();
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  // The scalar set has no such kernels.
  bool without_vectors() const {
    EXPECT_EQ(ops_ == nullptr, GetParam() == HWY_SCALAR);
    return ops_ == nullptr;
  }
  const RowScoreOps* ops_ = nullptr;
};

// Runs of `length` keys, each unaligned, and rows of queries.
struct Case {
  DType type;
  int d, rows, runs, length;
  std::vector<std::byte> memory;
  std::vector<const std::byte*> first;
  std::vector<float> queries;

  Case(DType t, int dim, int row_count, int run_count, int run_length)
      : type(t), d(dim), rows(row_count), runs(run_count), length(run_length) {
    const size_t row = kv_row_bytes(type, d), gap = 6;
    if (runs > 0) memory.resize((row * static_cast<size_t>(length) + gap) * static_cast<size_t>(runs) - gap);
    auto random = test::random_of(7, d, rows);
    for (int i = 0; i < runs; ++i) {
      std::byte* at = memory.data() + (row * static_cast<size_t>(length) + gap) * static_cast<size_t>(i);
      first.push_back(at);
      for (int k = 0; k < length; ++k) store_row(test::normal_floats(random, d).data(), type, d, 0, at + row * static_cast<size_t>(k));
    }
    queries = test::normal_floats(random, int64_t{rows} * d);
  }

  double wanted(int run) const {
    std::vector<float> key(static_cast<size_t>(d));
    double best = kNone;
    for (int k = 0; k < length; ++k) {
      load_row(first[static_cast<size_t>(run)] + kv_row_bytes(type, d) * static_cast<size_t>(k), type, d, key.data());
      for (int r = 0; r < rows; ++r) {
        double sum = 0;
        for (int e = 0; e < d; ++e) sum += double{queries[static_cast<size_t>(int64_t{r} * d + e)]} * double{key[static_cast<size_t>(e)]};
        best = std::max(best, sum);
      }
    }
    return best;
  }

  std::vector<float> ordered(const RowScoreOps& ops) const {
    std::vector<float> out(queries.size());
    ops.order(queries.data(), rows, d, type, out.data());
    return out;
  }
};

TEST_P(RowScores, AreTheBestProducts) {
  if (without_vectors()) return;
  int fitting = 0;
  for (const DType type : kAllDTypes) {
    for (const int d : {16, 20, 32, 48, 64, 80, 96, 128, 256}) {
      if (!ops_->fits(d, type)) continue;
      ++fitting;
      for (const int rows : {1, 2, 3, 4, 5, 8}) {
        for (const int length : {1, 2, 4, 8, 64}) {
          for (const int runs : {0, 1, 3, 5}) {
            const Case c(type, d, rows, runs, length);
            std::vector<float> best(static_cast<size_t>(runs) + 1, kNone);
            ops_->best_of_runs(c.ordered(*ops_).data(), rows, d, c.first.data(), runs, length, type, best.data());
            for (int i = 0; i < runs; ++i) {
              ASSERT_NEAR(best[static_cast<size_t>(i)], c.wanted(i), 1e-4)
                  << name_of(type) << ", d " << d << ", rows " << rows << ", length " << length << ", run " << i << " of " << runs;
            }
            ASSERT_EQ(best.back(), kNone) << "written past the runs";
          }
        }
      }
    }
  }
  EXPECT_GE(fitting, 3 * 4);
}

TEST_P(RowScores, KeepWhatIsBetterAndHaveBitsOfTheirOwn) {
  if (without_vectors()) return;
  for (const DType type : {DType::f32, DType::bf16, DType::i8}) {
    for (const int length : {1, 2, 8}) {
      const Case c(type, 64, 3, 7, length);
      const auto rows = c.ordered(*ops_);
      std::vector<float> together(7, kNone), alone(7, kNone), high(7, 1000.0F);
      ops_->best_of_runs(rows.data(), 3, 64, c.first.data(), 7, length, type, together.data());
      for (size_t i = 0; i < alone.size(); ++i) ops_->best_of_runs(rows.data(), 3, 64, &c.first[i], 1, length, type, &alone[i]);
      EXPECT_EQ(together, alone) << name_of(type) << ", length " << length;
      ops_->best_of_runs(rows.data(), 3, 64, c.first.data(), 7, length, type, high.data());
      EXPECT_EQ(high, std::vector<float>(7, 1000.0F));
    }
  }
}

TEST_P(RowScores, DoNotFitEverything) {
  if (without_vectors()) return;
  EXPECT_FALSE(ops_->fits(64, DType::i4));
  EXPECT_FALSE(ops_->fits(2 * ops_->lanes + 2, DType::bf16));
  EXPECT_TRUE(ops_->fits(64, DType::i8));
}

INSTANTIATE_TEST_SUITE_P(Targets, RowScores, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace bough::cpu
