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

INSTANTIATE_TEST_SUITE_P(Bodies, KvWriteTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
