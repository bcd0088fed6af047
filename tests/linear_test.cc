// linear: every body against the scalar one, and the same bits whatever rows and threads come with a row.
#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

using test::random_rows;
using test::RandomMatrix;

const ModelBodies& fast() { return model_bodies().front(); }
const ModelBodies& oracle() { return model_bodies().back(); }

// Root mean square distance from the product of the dequantised weights with f32 rows, whose elements have unit deviation. prefill rounds
// both to 8 bits where the weights are of a quantised type (linear_int8_test.cc has the tighter test of that) and the CPU has the products,
// else to bf16 (8 bits of mantissa), unless the weights are f32; decode rounds the row as ggml's dot product wants it: f16, or 8-bit blocks
// of 32.
struct Tolerance {
  int type;
  double prefill;
  double decode;
};
constexpr Tolerance kTolerances[] = {
    {GGML_TYPE_F32, 1e-6, 1e-6},    {GGML_TYPE_F16, 8e-3, 1e-3},    {GGML_TYPE_Q8_0, 1.2e-2, 1e-2},
    {GGML_TYPE_Q4_0, 1.2e-2, 1e-2}, {GGML_TYPE_Q4_1, 1.2e-2, 1e-2},
};

double error(const std::vector<float>& y, const std::vector<float>& expected) {
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += std::pow(static_cast<double>(y[i]) - expected[i], 2);
  return y.size() == expected.size() ? std::sqrt(sum / static_cast<double>(y.size())) : INFINITY;
}

struct Options {
  Phase phase = Phase::prefill;
  bool add = false;
  PackedWeights* packed = nullptr;
  const float* bias = nullptr;
};

std::vector<float> product(const ModelBodies& bodies, const std::vector<float>& x, const Tensor& w, const Options& options = {}) {
  const auto rows = static_cast<int64_t>(x.size()) / w.cols;
  std::vector<float> y = random_rows(rows, w.rows, 77);  // what `add` adds to, and what must be gone without it
  const LinearArgs args{x.data(), rows, w, options.phase, options.add, y.data(), options.packed, options.bias};
  bodies.linear({&args, 1});
  return y;
}

// Several matrices of different types, one of them added to, in one call.
TEST(LinearTogether, IsOneAfterAnother) {
  const RandomMatrix a(GGML_TYPE_Q4_1, 130, 64, 1), b(GGML_TYPE_Q8_0, 33, 64, 2), c(GGML_TYPE_F32, 1, 64, 3), d(GGML_TYPE_Q4_1, 16, 64, 4);
  const std::vector<float> x = random_rows(3, 64, 5), bias = random_rows(1, 33, 6);
  // Room for none, for decode's form of the first and the last matrix alone (5,760 and 640 bytes; the second takes 3,264), and for all.
  for (const size_t budget : {size_t{0}, size_t{7200}, size_t{1} << 30}) {
    for (const ModelBodies& bodies : model_bodies()) {
      for (const Phase phase : {Phase::decode, Phase::prefill}) {
        const PackedWeightsPtr packed = make_packed_weights(budget);
        std::vector<std::vector<float>> alone, together;
        for (const RandomMatrix* w : {&a, &b, &c, &d}) {
          const bool second = w == &b;
          alone.push_back(product(bodies, x, w->tensor(), {phase, second, packed.get(), second ? bias.data() : nullptr}));
          together.push_back(random_rows(3, w->tensor().rows, 77));
        }
        const LinearArgs all[] = {{x.data(), 3, a.tensor(), phase, false, together[0].data(), packed.get()},
                                  {x.data(), 3, b.tensor(), phase, true, together[1].data(), packed.get(), bias.data()},
                                  {x.data(), 3, c.tensor(), phase, false, together[2].data(), packed.get()},
                                  {x.data(), 3, d.tensor(), phase, false, together[3].data(), packed.get()}};
        bodies.linear(std::span(all));
        EXPECT_EQ(together, alone) << bodies.name << ", budget " << budget;
      }
    }
  }
}

class Linear : public testing::TestWithParam<Tolerance> {};

TEST_P(Linear, EqualsTheOracle) {
  for (const int64_t n : {1, 33, 96, 130, 500}) {
    const RandomMatrix w(GetParam().type, n, 64, 1);
    for (const int64_t rows : {1, 63, 64, 65, 130}) {
      const std::vector<float> x = random_rows(rows, 64, 2);
      for (const bool add : {false, true}) {
        const std::vector<float> expected = product(oracle(), x, w.tensor(), {.add = add});
        const std::string what = test::type_name(GetParam().type) + ", N " + std::to_string(n) + ", rows " + std::to_string(rows);
        EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::prefill, add}), expected), GetParam().prefill) << what;
        EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::decode, add}), expected), GetParam().decode) << what;
      }
    }
  }
}

TEST_P(Linear, AddsTheBias) {
  for (const int64_t n : {1, 33, 130, 500}) {
    const RandomMatrix w(GetParam().type, n, 64, 14);
    const std::vector<float> bias = random_rows(1, n, 15);
    for (const int64_t rows : {1, 64, 65}) {
      const std::vector<float> x = random_rows(rows, 64, 16);
      for (const bool add : {false, true}) {
        std::vector<float> expected = product(oracle(), x, w.tensor(), {.add = add});
        for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % static_cast<size_t>(n)];
        const std::string what = test::type_name(GetParam().type) + ", N " + std::to_string(n) + ", rows " + std::to_string(rows);
        EXPECT_LE(error(product(oracle(), x, w.tensor(), {.add = add, .bias = bias.data()}), expected), 1e-6) << what;
        EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::prefill, add, nullptr, bias.data()}), expected), GetParam().prefill) << what;
        EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::decode, add, nullptr, bias.data()}), expected), GetParam().decode) << what;
      }
    }
  }
}

TEST_P(Linear, LongRows) {
  const RandomMatrix w(GetParam().type, 40, 1536, 3);
  const std::vector<float> x = random_rows(5, 1536, 4);
  const std::vector<float> expected = product(oracle(), x, w.tensor());
  EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::prefill}), expected), GetParam().prefill);
  EXPECT_LE(error(product(fast(), x, w.tensor(), {Phase::decode}), expected), GetParam().decode);
}

TEST_P(Linear, ARowAloneHasTheSameBits) {
  constexpr int64_t kRows = 131, kCols = 96, kFeatures = 416;
  const RandomMatrix w(GetParam().type, kFeatures, kCols, 5);
  const std::vector<float> x = random_rows(kRows, kCols, 6);
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    const std::vector<float> all = product(fast(), x, w.tensor(), {phase});
    for (const int64_t row : {int64_t{0}, int64_t{1}, int64_t{31}, int64_t{63}, int64_t{64}, kRows - 1}) {
      const std::vector<float> one(x.begin() + row * kCols, x.begin() + (row + 1) * kCols);
      const std::vector<float> alone = product(fast(), one, w.tensor(), {phase});
      EXPECT_TRUE(test::same_bits(alone, {all.data() + row * kFeatures, static_cast<size_t>(kFeatures)})) << "row " << row;
    }
  }
}

TEST_P(Linear, ThreadsDoNotMatter) {
  const RandomMatrix w(GetParam().type, 200, 64, 7);
  const std::vector<float> x = random_rows(130, 64, 8);
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
      test::with_threads(threads, [&] { results.push_back(product(fast(), x, w.tensor(), {phase, true})); });
    }
    EXPECT_TRUE(test::same_bits(results[0], results[1]));
    EXPECT_TRUE(test::same_bits(results[0], results[2]));
  }
}

// Kept panels, panels beyond the budget and panels made for one call hold the same.
TEST_P(Linear, PackedWeightsDoNotMatter) {
  const RandomMatrix first(GetParam().type, 130, 64, 9), second(GetParam().type, 70, 64, 10);
  const std::vector<float> x = random_rows(65, 64, 11);
  for (const size_t budget : {size_t{0}, size_t{12000}, size_t{48000}, size_t{1} << 30}) {
    const PackedWeightsPtr packed = make_packed_weights(budget);
    for (int turn = 0; turn < 2; ++turn) {
      for (const RandomMatrix* w : {&first, &second}) {
        const std::vector<float> kept = product(fast(), x, w->tensor(), {.packed = packed.get()});
        EXPECT_TRUE(test::same_bits(kept, product(fast(), x, w->tensor()))) << "budget " << budget << ", turn " << turn;
      }
    }
  }
}

// The same weights used with and without `add` share their packed form.
TEST_P(Linear, PackedWeightsServeAdding) {
  const RandomMatrix w(GetParam().type, 416, 64, 12);
  const std::vector<float> x = random_rows(66, 64, 13);
  const PackedWeightsPtr packed = make_packed_weights(size_t{1} << 30);
  for (const bool add : {false, true}) {
    EXPECT_TRUE(test::same_bits(product(fast(), x, w.tensor(), {Phase::prefill, add, packed.get()}),
                                product(fast(), x, w.tensor(), {Phase::prefill, add})));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Linear, testing::ValuesIn(kTolerances), [](const auto& info) { return test::type_name(info.param.type); });

}  // namespace
}  // namespace bough
