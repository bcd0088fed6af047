// kv_write: every row lands in its own place, rounded once to nearest even, and nothing else is touched.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "steps/kv_row.h"
#include "support/attention_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Input;

// x [d] as it reads back.
std::vector<float> stored(const float* x, DType type, int d) {
  std::vector<float> y(x, x + d);
  if (type == DType::f32 || type == DType::bf16) {
    for (float& e : y) e = rounded(e, type);
    return y;
  }
  std::vector<std::byte> row(bytes_of(type, y.size()));
  store_row(x, type, d, row.data());
  load_row(row.data(), type, d, y.data());
  return y;
}

class KvWriteTest : public testing::TestWithParam<std::string> {
 protected:
  void write(const AttentionCase& c, const Input& input) const {
    test::body_named(GetParam()).kv_write({&input.batch, c.shape().kv(), c.shape().layer, input.k.data(), input.v.data()});
  }
};

TEST_P(KvWriteTest, RowsLandInTheirPlacesAndNowhereElse) {
  for (const DType type : kAllDTypes) {
    for (const int d : {32, 80, 128}) {
      const CaseShape shape = {.type = type, .heads = 3, .kv_heads = 3, .d = d, .layers = 3, .layer = 1};
      AttentionCase c(
          shape, {{.length = 65, .first_row = 64, .decode = true}, {.length = 200, .first_row = 31}, {.length = 63, .first_row = 0}}, 41);
      c.clear_pages();
      const Input input = c.input();
      write(c, input);
      int64_t row = 0;
      for (int sequence = 0; sequence < 3; ++sequence) {
        for (int64_t token = input.batch.positions[static_cast<size_t>(row)]; token < c.pages(sequence).length; ++token, ++row) {
          for (int head = 0; head < 3; ++head) {
            const auto at = static_cast<size_t>((row * 3 + head) * d);
            ASSERT_EQ(c.key(sequence, token, head), stored(&input.k[at], type, d)) << shape.name();
            ASSERT_EQ(c.value(sequence, token, head), stored(&input.v[at], type, d)) << shape.name();
          }
        }
      }
      EXPECT_EQ(row, input.batch.rows());
      const auto written = static_cast<int64_t>(row * 3 * 2 * static_cast<int64_t>(shape.kv().row_bytes()));
      const auto changed = static_cast<int64_t>(c.pool().size()) - std::count(c.pool().begin(), c.pool().end(), std::byte{0xa5});
      EXPECT_LE(changed, written) << shape.name();
      EXPECT_GT(changed, written * 9 / 10) << shape.name();
    }
  }
}

TEST_P(KvWriteTest, RoundsToNearestEvenAndKeepsSpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<float, float>> cases = {{1.0F, 1.0F},
                                                      {1.0F + 1.0F / 256, 1.0F},
                                                      {1.0F + 3.0F / 256, 1.0F + 4.0F / 256},
                                                      {1.0F + 1.01F / 256, 1.0F + 2.0F / 256},
                                                      {-0.0F, -0.0F},
                                                      {kInf, kInf},
                                                      {-kInf, -kInf},
                                                      {3.4e38F, kInf},
                                                      {1e-40F, from_bf16(1)},
                                                      {std::nextafter(2.0F, 0.0F), 2.0F}};
  AttentionCase c({.type = DType::bf16, .heads = 1, .kv_heads = 1, .d = 32}, {{.length = 1}}, 42);
  Input input = c.input();
  for (size_t i = 0; i < cases.size(); ++i) input.k[i] = cases[i].first;
  input.k[31] = std::numeric_limits<float>::quiet_NaN();
  write(c, input);
  const auto key = c.key(0, 0, 0);
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(key[i], cases[i].second) << cases[i].first;
    EXPECT_EQ(std::signbit(key[i]), std::signbit(cases[i].second)) << cases[i].first;
  }
  EXPECT_TRUE(std::isnan(key[31]));
}

// Relative L2 distance of a row of d elements from what it reads back as.
double row_error(const std::vector<float>& x, DType type) {
  return test::relative_error(stored(x.data(), type, static_cast<int>(x.size())), x);
}

TEST(KvRow, QuantisedRowsStayClose) {
  for (const int d : {24, 32, 64, 80, 96, 128, 192, 256}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      auto random = test::random_of(43, d, static_cast<int64_t>(seed));
      const std::vector<float> x = test::normal_floats(random, d);
      EXPECT_LE(row_error(x, DType::i8), 0.012) << d;
      EXPECT_LE(row_error(x, DType::i4), 0.14) << d;
    }
  }
}

// Without the transform a channel 50 times as large as the others leaves them two or three levels, and their error is 40%.
TEST(KvRow, ALargeChannelLeavesTheOthersTheirLevels) {
  for (const int d : {64, 128}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      auto random = test::random_of(44, d, static_cast<int64_t>(seed));
      std::vector<float> x = test::normal_floats(random, d);
      x[7] = 50.0F;
      EXPECT_LE(row_error(x, DType::i4), 0.1) << d;
      EXPECT_NEAR(stored(x.data(), DType::i4, d)[7], 50.0F, 1.5F);
    }
  }
}

TEST(KvRow, SpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const DType type : {DType::i8, DType::i4}) {
    const std::vector<float> zeros(64);
    EXPECT_EQ(stored(zeros.data(), type, 64), zeros);
    const std::vector<float> tiny(64, 1e-44F);
    for (const float y : stored(tiny.data(), type, 64)) EXPECT_TRUE(std::isfinite(y)) << name_of(type);
    const std::vector<float> huge(64, 1e37F);
    for (const float y : stored(huge.data(), type, 64)) EXPECT_NEAR(y, 1e37F, 1e36F) << name_of(type);
    for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> x(64, 1.0F);
      x[3] = bad;
      const auto y = stored(x.data(), type, 64);
      for (int i = 0; i < kQuantGroup; ++i) EXPECT_TRUE(std::isnan(y[static_cast<size_t>(i)])) << name_of(type) << " " << bad;
    }
  }
}

TEST(KvRow, BytesOfARow) {
  EXPECT_EQ(bytes_of(DType::f32, 64), 256U);
  EXPECT_EQ(bytes_of(DType::bf16, 64), 128U);
  EXPECT_EQ(bytes_of(DType::i8, 64), 68U);
  EXPECT_EQ(bytes_of(DType::i4, 64), 36U);
  EXPECT_EQ(bytes_of(DType::i4, 80), 46U);
}

INSTANTIATE_TEST_SUITE_P(Bodies, KvWriteTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
