// The product in f32: every instruction set of this CPU against products in double, with rows longer than what is multiplied at once, and
// the same bits whatever rows come with a row and however its sums are cut. linear_test.cc holds it to the oracle with f32 weights, and
// where the CPU has neither bf16 nor 8-bit products with all others.
#include "cpu/gemm_f32.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "hwy/highway.h"
#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough::cpu {
namespace {

using test::random_rows;
using test::RandomMatrix;

class GemmF32 : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

struct Product {
  std::vector<float> x, bias, start;
  RandomMatrix w;
  int64_t rows;

  Product(int64_t rows, int64_t n, int64_t k, int type = GGML_TYPE_F32)
      : x(random_rows(rows, k, 1)), bias(random_rows(1, n, 2)), start(random_rows(rows, n, 3)), w(type, n, k, 4), rows(rows) {}

  std::vector<float> result(bool add, bool biased) const {
    std::vector<float> y = start;
    gemm_f32({x.data(), rows, w.tensor(), Phase::prefill, add, y.data(), nullptr, biased ? bias.data() : nullptr});
    return y;
  }
  // The largest distance from products in double of the dequantised weights; NaN where there is one in y.
  double error(const std::vector<float>& y, bool add, bool biased) const {
    const Tensor t = w.tensor();
    double worst = 0;
    std::vector<float> features(static_cast<size_t>(t.cols));
    for (int64_t n = 0; n < t.rows; ++n) {
      const auto id = static_cast<TokenId>(n);
      model_bodies().back().embed({&id, 1, t, features.data()});
      for (int64_t row = 0; row < rows; ++row) {
        const auto at = static_cast<size_t>(row * t.rows + n);
        double sum = (add ? start[at] : 0.0) + (biased ? bias[static_cast<size_t>(n)] : 0.0);
        for (int64_t i = 0; i < t.cols; ++i)
          sum += static_cast<double>(x[static_cast<size_t>(row * t.cols + i)]) * features[static_cast<size_t>(i)];
        const double distance = std::abs(y[at] - sum);
        if (!std::isnan(worst) && !(distance <= worst)) worst = distance;
      }
    }
    return worst;
  }
};

TEST_P(GemmF32, EqualsProductsInDouble) {
  for (const int64_t k : {1, 64, 1024, 1025, 2500}) {
    for (const int64_t n : {1, 15, 64, 131, 200}) {
      for (const int64_t rows : {1, 5, 6, 49}) {
        const Product p(rows, n, k);
        for (const bool add : {false, true}) {
          const double tolerance = 2e-6 * std::sqrt(static_cast<double>(k)) + 1e-6;
          EXPECT_LE(p.error(p.result(add, !add), add, !add), tolerance) << "K " << k << ", N " << n << ", rows " << rows;
        }
      }
    }
  }
}

TEST_P(GemmF32, DequantisesWeights) {
  for (const int type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1}) {
    const Product p(7, 131, 96, type);
    EXPECT_LE(p.error(p.result(true, true), true, true), 2e-5) << test::type_name(type);
  }
}

TEST_P(GemmF32, ARowsBitsAreItsOwn) {
  constexpr int64_t kRows = 101, kFeatures = 150, kCols = 1100;
  const Product all(kRows, kFeatures, kCols);
  const std::vector<float> y = all.result(false, true);
  for (const int64_t row : {0, 5, 6, 47, 48, 100}) {
    for (const int64_t rows : {1, 2, 3, 4, 5}) {
      if (row + rows > kRows) continue;
      Product some = all;
      some.rows = rows;
      some.x.assign(all.x.begin() + row * kCols, all.x.begin() + (row + rows) * kCols);
      some.start.resize(static_cast<size_t>(rows * kFeatures));
      EXPECT_TRUE(test::same_bits(some.result(false, true), {y.data() + row * kFeatures, static_cast<size_t>(rows * kFeatures)}))
          << rows << " rows from " << row;
    }
  }
}

TEST_P(GemmF32, SumsGoOn) {
  const GemmF32Ops& ops = gemm_f32_ops();
  constexpr int64_t kCols = 77, kCut = 30;
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 13}) {
    const std::vector<float> x = random_rows(rows, kCols, 5), w = random_rows(kCols, ops.panel, 6);
    std::vector<float> whole(static_cast<size_t>(rows * ops.panel), 9.0F), parts = whole;
    ops.multiply(x.data(), kCols, rows, w.data(), kCols, true, whole.data());
    ops.multiply(x.data(), kCols, rows, w.data(), kCut, true, parts.data());
    ops.multiply(x.data() + kCut, kCols, rows, w.data() + kCut * ops.panel, kCols - kCut, false, parts.data());
    EXPECT_TRUE(test::same_bits(whole, parts)) << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmF32, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace bough::cpu
