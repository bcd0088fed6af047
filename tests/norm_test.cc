// norm: every body against the definition, and the same bits whatever rows and threads come with a row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

using test::random_rows;

std::vector<float> norm(const ModelBodies& bodies, const std::vector<float>& x, const std::vector<float>& weight, float eps = 1e-5F) {
  const auto n = static_cast<int64_t>(weight.size());
  std::vector<float> y(x.size(), -9.0F);
  bodies.norm({x.data(), weight.data(), static_cast<int64_t>(x.size()) / n, n, eps, y.data()});
  return y;
}

TEST(Norm, EqualsTheDefinition) {
  for (const ModelBodies& bodies : model_bodies()) {
    for (const int64_t n : {1, 7, 16, 64, 100, 576}) {
      for (const int64_t rows : {1, 3, 65}) {
        const std::vector<float> x = random_rows(rows, n, 1), weight = random_rows(1, n, 2);
        const std::vector<float> y = norm(bodies, x, weight, 0.25F);
        std::vector<float> expected(x.size());
        for (int64_t t = 0; t < rows; ++t) {
          double squares = 0;
          for (int64_t i = 0; i < n; ++i) squares += std::pow(static_cast<double>(x[static_cast<size_t>(t * n + i)]), 2);
          for (int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<size_t>(t * n + i);
            expected[at] = static_cast<float>(x[at] / std::sqrt(squares / static_cast<double>(n) + 0.25) * weight[static_cast<size_t>(i)]);
          }
        }
        EXPECT_LE(test::relative_error(y, expected), 1e-6) << bodies.name << ", n " << n << ", rows " << rows;
      }
    }
  }
}

TEST(Norm, ZerosStayZero) {
  for (const ModelBodies& bodies : model_bodies()) {
    EXPECT_EQ(norm(bodies, std::vector<float>(64, 0.0F), std::vector<float>(64, 1.0F)), std::vector<float>(64, 0.0F)) << bodies.name;
  }
}

TEST(Norm, Adds) {
  for (const ModelBodies& bodies : model_bodies()) {
    for (const int64_t n : {1, 7, 64, 100}) {
      const std::vector<float> x = random_rows(5, n, 5), weight = random_rows(1, n, 6), before = random_rows(5, n, 7);
      std::vector<float> y = before;
      bodies.norm({x.data(), weight.data(), 5, n, 1e-5F, y.data(), true});
      std::vector<float> expected = norm(bodies, x, weight);
      for (size_t i = 0; i < y.size(); ++i) expected[i] += before[i];
      EXPECT_LE(test::relative_error(y, expected), 1e-6) << bodies.name << ", n " << n;
    }
  }
}

TEST(Norm, InPlaceRowsAndThreads) {
  constexpr int64_t kRows = 70, kWidth = 100;
  const std::vector<float> x = random_rows(kRows, kWidth, 3), weight = random_rows(1, kWidth, 4);
  for (const ModelBodies& bodies : model_bodies()) {
    const std::vector<float> all = norm(bodies, x, weight);
    std::vector<float> in_place = x;
    bodies.norm({in_place.data(), weight.data(), kRows, kWidth, 1e-5F, in_place.data()});
    EXPECT_TRUE(test::same_bits(in_place, all));
    const std::vector<float> last(x.end() - kWidth, x.end());
    EXPECT_TRUE(test::same_bits(norm(bodies, last, weight), std::vector<float>(all.end() - kWidth, all.end())));
    for (const int threads : {1, 2, 3}) {
      test::with_threads(threads, [&] { EXPECT_TRUE(test::same_bits(norm(bodies, x, weight), all)) << threads << " threads"; });
    }
  }
}

}  // namespace
}  // namespace bough
