// softcap: every body against the definition, and the same bits whatever the place and the threads.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

std::vector<float> capped(const ModelBodies& bodies, std::vector<float> x, float cap) {
  bodies.softcap({x.data(), static_cast<int64_t>(x.size()), cap});
  return x;
}

TEST(Softcap, EqualsTheDefinition) {
  for (const ModelBodies& bodies : model_bodies()) {
    for (const float cap : {0.5F, 30.0F}) {
      for (const int64_t count : {1, 15, 17, 4096, 9001}) {
        std::vector<float> x = test::random_rows(1, count, 1);
        for (float& value : x) value *= 20.0F;
        std::vector<float> expected;
        for (const float value : x) expected.push_back(static_cast<float>(cap * std::tanh(static_cast<double>(value) / cap)));
        EXPECT_LE(test::relative_error(capped(bodies, x, cap), expected), 1e-6) << bodies.name << ", cap " << cap << ", count " << count;
      }
    }
  }
}

TEST(Softcap, FarValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  for (const ModelBodies& bodies : model_bodies()) {
    const std::vector<float> y = capped(bodies, {0.0F, 1e6F, -1e6F, kInfinity, -kInfinity, kNan}, 30.0F);
    EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 5), (std::vector<float>{0.0F, 30.0F, -30.0F, 30.0F, -30.0F})) << bodies.name;
    EXPECT_TRUE(std::isnan(y[5])) << bodies.name;
  }
}

TEST(Softcap, PlaceAndThreadsDoNotMatter) {
  const std::vector<float> x = test::random_rows(1, 9001, 3);
  for (const ModelBodies& bodies : model_bodies()) {
    const std::vector<float> all = capped(bodies, x, 1.5F);
    for (const int threads : {1, 2, 3}) {
      test::with_threads(threads, [&] { EXPECT_TRUE(test::same_bits(capped(bodies, x, 1.5F), all)); });
    }
    for (const size_t at : {size_t{0}, size_t{5}, size_t{4096}, size_t{9000}}) EXPECT_EQ(capped(bodies, {x[at]}, 1.5F)[0], all[at]) << at;
  }
}

}  // namespace
}  // namespace bough
