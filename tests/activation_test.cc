// activation: both kinds in every body.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

constexpr Activation kKinds[] = {Activation::silu, Activation::gelu_tanh};

std::vector<float> activate(const ModelBodies& bodies, Activation kind, const std::vector<float>& gate, const std::vector<float>& up) {
  std::vector<float> y(gate.size(), -9.0F);
  bodies.activation({gate.data(), up.data(), static_cast<int64_t>(gate.size()), y.data(), kind});
  return y;
}

double by_definition(Activation kind, double g) {
  if (kind == Activation::silu) return g / (1.0 + std::exp(-g));
  return 0.5 * g * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g)));
}

TEST(Activation, EqualsTheDefinition) {
  for (const ModelBodies& bodies : model_bodies()) {
    for (const Activation kind : kKinds) {
      for (const int64_t count : {1, 15, 16, 17, 1000, 4096, 9001}) {
        std::vector<float> gate = test::random_rows(1, count, 1);
        for (float& g : gate) g *= 4.0F;
        const std::vector<float> up = test::random_rows(1, count, 2);
        std::vector<float> expected(gate.size());
        for (size_t i = 0; i < gate.size(); ++i)
          expected[i] = static_cast<float>(by_definition(kind, gate[i]) * static_cast<double>(up[i]));
        EXPECT_LE(test::relative_error(activate(bodies, kind, gate, up), expected), 1e-6) << bodies.name << ", count " << count;
      }
    }
  }
}

TEST(Activation, FarValues) {
  const std::vector<float> gate = {0.0F, 90.0F, 1000.0F, -90.0F, -1000.0F, -20.0F};
  const std::vector<float> up(gate.size(), 1.0F);
  for (const ModelBodies& bodies : model_bodies()) {
    for (const Activation kind : kKinds) {
      const std::vector<float> y = activate(bodies, kind, gate, up);
      EXPECT_EQ(y[0], 0.0F);
      EXPECT_FLOAT_EQ(y[1], 90.0F);
      EXPECT_FLOAT_EQ(y[2], 1000.0F);
      EXPECT_NEAR(y[3], 0.0F, 1e-30F) << bodies.name;
      EXPECT_NEAR(y[4], 0.0F, 1e-30F) << bodies.name;
    }
    const std::vector<float> y = activate(bodies, Activation::silu, gate, up);
    EXPECT_NEAR(y[5] / (-20.0F * std::exp(-20.0F)), 1.0F, 1e-5F) << bodies.name;
  }
}

TEST(Activation, NotANumberIsNotHidden) {
  const std::vector<float> gate(20, std::numeric_limits<float>::quiet_NaN()), up(20, 1.0F);
  for (const ModelBodies& bodies : model_bodies()) {
    for (const Activation kind : kKinds) {
      for (const float y : activate(bodies, kind, gate, up)) EXPECT_TRUE(std::isnan(y)) << bodies.name;
    }
  }
}

// The position of an element in its row decides which lanes compute it; that changes no bit.
TEST(Activation, PlaceAndThreadsDoNotMatter) {
  const std::vector<float> gate = test::random_rows(1, 9001, 3), up = test::random_rows(1, 9001, 4);
  for (const ModelBodies& bodies : model_bodies()) {
    for (const Activation kind : kKinds) {
      const std::vector<float> all = activate(bodies, kind, gate, up);
      for (const int threads : {1, 2, 3}) {
        test::with_threads(threads, [&] { EXPECT_TRUE(test::same_bits(activate(bodies, kind, gate, up), all)); });
      }
      for (const size_t at : {size_t{0}, size_t{5}, size_t{4096}, size_t{9000}}) {
        EXPECT_EQ(activate(bodies, kind, {gate[at]}, {up[at]})[0], all[at]) << bodies.name << ", element " << at;
      }
      std::vector<float> in_place = gate;
      bodies.activation({in_place.data(), up.data(), static_cast<int64_t>(gate.size()), in_place.data(), kind});
      EXPECT_TRUE(test::same_bits(in_place, all));
    }
  }
}

}  // namespace
}  // namespace bough
