// The product in 8 bits: the scalar body against exact products, the quick one against the scalar body.
#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "cpu/gemm_int8.h"
#include "cpu/model_bodies.h"
#include "cpu/tile.h"
#include "ref/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

using test::random_rows;
using test::RandomMatrix;

using Body = void (*)(const LinearArgs&);
void exact_body(const LinearArgs& args) { ref::linear({&args, 1}); }
void quick_body(const LinearArgs& args) { cpu::linear({&args, 1}); }

std::vector<float> product(Body body, const std::vector<float>& x, const Tensor& w, bool add = false, const float* bias = nullptr,
                           bool precise = false) {
  const auto rows = static_cast<int64_t>(x.size()) / w.cols;
  std::vector<float> y = random_rows(rows, w.rows, 77);  // what `add` adds to, and what must be gone without it
  body({x.data(), rows, w, Phase::prefill, add, y.data(), nullptr, bias, precise});
  return y;
}

// Root mean square of the difference over that of what is expected.
double relative(const std::vector<float>& y, const std::vector<float>& expected) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(y[i]) - expected[i], 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return y.size() == expected.size() ? std::sqrt(difference / size) : INFINITY;
}

// Rows whose channel 5 is 100 times as large as the others.
std::vector<float> rows_with_outliers(int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> x = random_rows(rows, cols, seed);
  for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * cols + 5)] = 100;
  return x;
}

constexpr int kTypes[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1};

TEST(LinearInt8, ScalarBodyIsNearTheExactProduct) {
  for (const int type : kTypes) {
    for (const int64_t k : {32, 64, 96, 480, 576, 1536}) {
      const RandomMatrix w(type, 40, k, 1);
      const std::vector<float> x = random_rows(7, k, 2);
      EXPECT_LE(relative(product(ref::linear_int8, x, w.tensor()), product(exact_body, x, w.tensor())), 0.014)
          << test::type_name(type) << ", K " << k;
    }
  }
}

// Codes of a group in which one element is 100 would be 0 or 1 for the others, were it not turned.
TEST(LinearInt8, OutliersLeaveTheOthersTheirBits) {
  const RandomMatrix w(GGML_TYPE_Q8_0, 40, 576, 3);
  const std::vector<float> outliers = rows_with_outliers(7, 576, 4);
  std::vector<float> alone(outliers.size());
  for (size_t i = 5; i < alone.size(); i += 576) alone[i] = 100;
  const std::vector<float> exact = product(exact_body, outliers, w.tensor());
  const std::vector<float> y = product(ref::linear_int8, outliers, w.tensor());
  const std::vector<float> of_outlier = product(exact_body, alone, w.tensor());
  std::vector<float> others(exact.size()), expected(exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    others[i] = y[i] - of_outlier[i];
    expected[i] = exact[i] - of_outlier[i];
  }
  EXPECT_LE(relative(others, expected), 0.045);
}

// The bodies that this CPU has besides the scalar one: the suite has no tests where there are none.
std::vector<Body> quick_bodies() {
  if (!cpu::gemm_int8_takes(GGML_TYPE_Q4_1)) return {};
  return {cpu::gemm_int8};
}

class QuickInt8 : public testing::TestWithParam<Body> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QuickInt8);

TEST_P(QuickInt8, EqualsTheScalarBody) {
  for (const int type : kTypes) {
    for (const int64_t k : {32, 64, 96, 480, 576}) {
      for (const int64_t n : {1, 15, 16, 17, 32, 33, 130}) {
        const RandomMatrix w(type, n, k, 5);
        const std::vector<float> bias = random_rows(1, n, 6);
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 95, 96, 100}) {
          const std::vector<float> x = rows_with_outliers(rows, k, 7);
          for (const bool add : {false, true}) {
            const float* b = add ? bias.data() : nullptr;
            const std::vector<float> expected = product(ref::linear_int8, x, w.tensor(), add, b);
            EXPECT_LE(relative(product(GetParam(), x, w.tensor(), add, b), expected), 1e-6)
                << test::type_name(type) << ", K " << k << ", N " << n << ", rows " << rows;
          }
        }
      }
    }
  }
}

// Codes of zero rows, of rows too small for a scale and of rows near the largest float.
TEST_P(QuickInt8, ExtremeRows) {
  const RandomMatrix w(GGML_TYPE_Q4_1, 33, 96, 8);
  for (const float size : {0.0F, 1e-38F, 1e-20F, 1e20F}) {
    std::vector<float> x = random_rows(5, 96, 9);
    for (float& e : x) e *= size;
    const std::vector<float> expected = product(ref::linear_int8, x, w.tensor());
    const std::vector<float> y = product(GetParam(), x, w.tensor());
    for (size_t i = 0; i < y.size(); ++i) EXPECT_LE(std::abs(y[i] - expected[i]), 1e-5 * size) << "size " << size << ", element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, QuickInt8, testing::ValuesIn(quick_bodies()));

// One element is enough, in any block of a group, and other rows keep their results.
TEST(LinearInt8, NanAndInfinityStay) {
  const RandomMatrix w(GGML_TYPE_Q4_1, 33, 352, 10);
  std::vector<Body> bodies = quick_bodies();
  bodies.push_back(ref::linear_int8);
  for (const Body body : bodies) {
    for (const float bad : {NAN, INFINITY}) {
      for (const size_t at : {0, 200, 256, 320, 351}) {
        std::vector<float> x = random_rows(2, 352, 13);
        x[at] = bad;
        const std::vector<float> y = product(body, x, w.tensor());
        for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i < 33) << bad << " at " << at << ", element " << i;
      }
    }
  }
}

// What prefill takes where the CPU has the products and no AMX, and that it leaves other types and precise products alone, on other CPUs
// all.
TEST(LinearInt8, PrefillTakesQuantisedTypes) {
  EXPECT_FALSE(cpu::gemm_int8_takes(GGML_TYPE_F32));
  EXPECT_FALSE(cpu::gemm_int8_takes(GGML_TYPE_F16));
  EXPECT_FALSE(cpu::gemm_int8_takes(GGML_TYPE_BF16));
  const RandomMatrix w(GGML_TYPE_Q4_1, 100, 576, 11);
  const std::vector<float> x = random_rows(70, 576, 12);
  const std::vector<float> exact = product(exact_body, x, w.tensor()), y = product(quick_body, x, w.tensor());
  EXPECT_LE(relative(product(quick_body, x, w.tensor(), false, nullptr, true), exact), 0.004);
  if (quick_bodies().empty() || cpu::tile_amx() != nullptr) {
    EXPECT_LE(relative(y, exact), 0.004);
    return;
  }
  EXPECT_TRUE(test::same_bits(y, product(quick_bodies().front(), x, w.tensor())));
  EXPECT_GE(relative(y, exact), 0.006);
}

}  // namespace
}  // namespace bough
