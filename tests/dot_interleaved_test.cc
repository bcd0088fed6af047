// Decode's dot products over interleaved weights against sums in double of the same rounded rows, and what they may not depend on.
#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/dot_interleaved.h"
#include "cpu/model_bodies.h"
#include "ref/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

using test::random_rows;
using test::RandomMatrix;

constexpr int kTypes[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1};

std::vector<float> decoded(const std::vector<float>& x, const Tensor& w, PackedWeights* packed, bool add = false,
                           const float* bias = nullptr) {
  const auto rows = static_cast<int64_t>(x.size()) / w.cols;
  std::vector<float> y = random_rows(rows, w.rows, 77);  // what `add` adds to, and what must be gone without it
  const LinearArgs args{x.data(), rows, w, Phase::decode, add, y.data(), packed, bias};
  cpu::linear({&args, 1});
  return y;
}

// Each block of 32 to multiples of its largest magnitude / 127.
std::vector<float> rounded_rows(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  for (size_t b = 0; b < x.size(); b += 32) {
    float largest = 0;
    for (size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::abs(x[i]));
    for (size_t i = b; i < b + 32; ++i) y[i] = largest == 0 ? 0 : std::nearbyint(x[i] * (127.0F / largest)) * (largest / 127.0F);
  }
  return y;
}

class DotInterleaved : public testing::Test {
 protected:
  void SetUp() override {
    if (!cpu::interleaves(GGML_TYPE_Q4_1)) GTEST_SKIP() << "this CPU has no such dot products";
  }
  PackedWeightsPtr packed_ = make_packed_weights(size_t{1} << 30);
};

TEST_F(DotInterleaved, EqualsTheSumOfRoundedRows) {
  for (const int type : kTypes) {
    for (const int64_t n : {1, 15, 16, 17, 200}) {
      for (const int64_t k : {32, 64, 96, 576, 1536}) {
        const RandomMatrix matrix(type, n, k, 1);
        const Tensor w = matrix.tensor();
        const PackedWeightsPtr packed = make_packed_weights(size_t{1} << 30);
        const std::vector<float> x = random_rows(3, k, 2), bias = random_rows(1, n, 3), before = random_rows(3, n, 77);
        for (const bool more : {false, true}) {
          const std::vector<float> y = decoded(x, w, packed.get(), more, more ? bias.data() : nullptr);
          std::vector<float> exact(y.size());
          const std::vector<float> near = rounded_rows(x);
          ref::linear(std::vector<LinearArgs>{{near.data(), 3, w, Phase::decode, false, exact.data()}});
          for (size_t i = 0; i < y.size(); ++i) {
            const float expected = exact[i] + (more ? before[i] + bias[i % static_cast<size_t>(n)] : 0);
            ASSERT_NEAR(y[i], expected, 2e-5) << test::type_name(type) << ", N " << n << ", K " << k << ", " << i;
          }
        }
      }
    }
  }
}

TEST_F(DotInterleaved, ARowAloneHasTheSameBits) {
  const RandomMatrix matrix(GGML_TYPE_Q4_1, 200, 576, 4);
  const std::vector<float> x = random_rows(5, 576, 5);
  const std::vector<float> all = decoded(x, matrix.tensor(), packed_.get());
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      for (size_t row = 0; row < 5; ++row) {
        const std::vector<float> one(x.begin() + static_cast<ptrdiff_t>(row * 576), x.begin() + static_cast<ptrdiff_t>(row * 576 + 576));
        EXPECT_TRUE(test::same_bits(decoded(one, matrix.tensor(), packed_.get()), {all.data() + row * 200, 200}));
      }
    });
  }
}

// Weights that find no room, or nobody to keep them, are multiplied where they lie.
TEST_F(DotInterleaved, WithoutRoomTheFilesRowsServe) {
  const RandomMatrix first(GGML_TYPE_Q4_1, 64, 96, 6), second(GGML_TYPE_Q8_0, 64, 96, 7);
  const std::vector<float> x = random_rows(2, 96, 8);
  const PackedWeightsPtr one = make_packed_weights(cpu::interleaved_bytes(first.tensor()));
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_EQ(decoded(x, first.tensor(), one.get()), decoded(x, first.tensor(), packed_.get()));
    EXPECT_EQ(decoded(x, second.tensor(), one.get()), decoded(x, second.tensor(), nullptr));
  }
  EXPECT_NE(decoded(x, second.tensor(), nullptr), decoded(x, second.tensor(), packed_.get()));
}

// Prefill's form of the same weights stands beside decode's.
TEST_F(DotInterleaved, PrefillKeepsItsOwnForm) {
  const RandomMatrix matrix(GGML_TYPE_Q4_1, 64, 96, 9);
  const std::vector<float> x = random_rows(2, 96, 10);
  const std::vector<float> before = decoded(x, matrix.tensor(), packed_.get());
  std::vector<float> y(128), again(128);
  const LinearArgs args{x.data(), 2, matrix.tensor(), Phase::prefill, false, y.data(), packed_.get()};
  cpu::linear({&args, 1});
  EXPECT_EQ(decoded(x, matrix.tensor(), packed_.get()), before);
  LinearArgs unkept = args;
  unkept.y = again.data();
  unkept.packed = nullptr;
  cpu::linear({&unkept, 1});
  EXPECT_EQ(y, again);
}

TEST_F(DotInterleaved, WhatIsNotFiniteStaysInItsRow) {
  const RandomMatrix matrix(GGML_TYPE_Q4_1, 40, 64, 11);
  const std::vector<float> clean = random_rows(3, 64, 12), expected = decoded(clean, matrix.tensor(), packed_.get());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = clean;
    x[64 + 40] = bad;
    const std::vector<float> y = decoded(x, matrix.tensor(), packed_.get());
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(y[i], expected[i]);
      EXPECT_TRUE(std::isnan(y[40 + i]));
      EXPECT_EQ(y[80 + i], expected[80 + i]);
    }
  }
}

TEST_F(DotInterleaved, TinyAndZeroRowsGiveZero) {
  const RandomMatrix matrix(GGML_TYPE_Q8_0, 16, 32, 13);
  std::vector<float> x(64, 1e-40F);
  std::fill_n(x.begin(), 32, 0.0F);
  for (const float y : decoded(x, matrix.tensor(), packed_.get())) EXPECT_NEAR(y, 0.0F, 1e-36F);
}

}  // namespace
}  // namespace bough
