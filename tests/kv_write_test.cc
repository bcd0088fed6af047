// kv_write: every row lands in its own place, rounded once to nearest even, and nothing else is touched.
#include <gtest/gtest.h>

#include <algorithm>
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

// The rows of a page and head.
class Plane {
 public:
  Plane(DType type, int d) : type_(type), d_(d), bytes_(kv_head_bytes(type, d)) {}

  // `mean` [d] is what the rows of i4 are relative to.
  void set_mean(const std::vector<float>& mean) {
    for (size_t i = 0; i < kv_mean_bytes(type_, d_) / 2; ++i) store_element(bytes_.data(), i, DType::bf16, mean[i]);
  }
  std::vector<float> mean() const {
    std::vector<float> x(kv_mean_bytes(type_, d_) / 2);
    for (size_t i = 0; i < x.size(); ++i) x[i] = load_element(bytes_.data(), i, DType::bf16);
    return x;
  }
  void begin_after(const Plane* before) { store_mean(before == nullptr ? nullptr : before->row(0), d_, row(0)); }
  // x [d] as it reads back.
  std::vector<float> stored(const float* x, int place) {
    store_row(x, type_, d_, place, row(place));
    return read(place);
  }
  std::vector<float> read(int place) const {
    std::vector<float> y(static_cast<size_t>(d_));
    load_row(row(place), type_, d_, y.data());
    return y;
  }

 private:
  std::byte* row(int place) { return &bytes_[kv_mean_bytes(type_, d_) + static_cast<size_t>(place) * kv_row_bytes(type_, d_)]; }
  const std::byte* row(int place) const { return &bytes_[kv_mean_bytes(type_, d_) + static_cast<size_t>(place) * kv_row_bytes(type_, d_)]; }

  DType type_;
  int d_;
  std::vector<std::byte> bytes_;
};

// x [d] as it reads back in a first page.
std::vector<float> stored(const float* x, DType type, int d) { return Plane(type, d).stored(x, 0); }

// What the rows of the page of `token` are relative to, from the rows that lie before it.
std::vector<float> mean_before(const AttentionCase& c, int sequence, int64_t token, int head, bool key) {
  const int64_t page = token / kPageTokens * kPageTokens;
  std::vector<float> mean(static_cast<size_t>(c.shape().d));
  for (int64_t t = std::max<int64_t>(0, page - kPageTokens); t < page; ++t) {
    const auto x = key ? c.key(sequence, t, head) : c.value(sequence, t, head);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += x[i];
  }
  for (float& x : mean) x /= kPageTokens;
  return mean;
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
      const KvShape kv = shape.kv();
      const Input input = c.input();
      size_t written = 0, means = 0;
      for (size_t row = 0; row < input.batch.positions.size(); ++row) {
        PageTable pages = c.pages(input.batch.row_seq[row]);
        const int64_t token = input.batch.positions[row];
        for (int head = 0; head < 3; ++head) {
          for (const size_t plane : {kv.k_offset(1, head), kv.v_offset(1, head)}) {
            std::fill_n(pages.row(token, plane, kv.row_bytes()), kv.row_bytes(), std::byte{0xa5});
            written += kv.row_bytes();
            means += token % kPageTokens == 0 ? kv_mean_bytes(type, d) : 0;
          }
        }
      }
      const std::vector<std::byte> before(c.pool().begin(), c.pool().end());
      write(c, input);
      int64_t row = 0;
      for (int sequence = 0; sequence < 3; ++sequence) {
        for (int64_t token = input.batch.positions[static_cast<size_t>(row)]; token < c.pages(sequence).length; ++token, ++row) {
          for (int head = 0; head < 3; ++head) {
            const auto at = static_cast<size_t>((row * 3 + head) * d);
            for (const bool key : {true, false}) {
              Plane plane(type, d);
              plane.set_mean(mean_before(c, sequence, token, head, key));
              ASSERT_EQ(key ? c.key(sequence, token, head) : c.value(sequence, token, head),
                        plane.stored(key ? &input.k[at] : &input.v[at], static_cast<int>(token % kPageTokens)))
                  << shape.name() << " token " << token;
            }
          }
        }
      }
      EXPECT_EQ(row, input.batch.rows());
      size_t changed = 0;
      for (size_t i = 0; i < before.size(); ++i) changed += before[i] == c.pool()[i] ? 0U : 1U;
      EXPECT_LE(changed, written + means) << shape.name();
      EXPECT_GT(changed, written * 9 / 10) << shape.name();
    }
  }
}

// A page whose rows are all stored again, and one that is gone on with, have the bits of a page that is stored at once.
TEST_P(KvWriteTest, CutsAndRewritesChangeNoBit) {
  for (const DType type : kAllDTypes) {
    const CaseShape shape = {.type = type, .heads = 2, .kv_heads = 2, .d = 64};
    AttentionCase c(shape, {{.length = 300, .first_row = 0}}, 45);
    const Input all = c.input();
    write(c, all);
    const std::vector<std::byte> expected(c.pool().begin(), c.pool().end());
    for (const auto& [from, to] : std::vector<std::pair<int64_t, int64_t>>{{128, 300}, {64, 65}, {65, 129}, {129, 130}, {130, 300}}) {
      Input piece;
      const auto width = static_cast<ptrdiff_t>(2 * 64);
      piece.batch.sequences = all.batch.sequences;
      piece.batch.sequences[0].length = to;
      piece.batch.ids.resize(static_cast<size_t>(to - from));
      piece.batch.row_seq.resize(static_cast<size_t>(to - from));
      for (int64_t p = from; p < to; ++p) piece.batch.positions.push_back(p);
      piece.k.assign(all.k.begin() + from * width, all.k.begin() + to * width);
      piece.v.assign(all.v.begin() + from * width, all.v.begin() + to * width);
      write(c, piece);
    }
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), c.pool().begin())) << name_of(type);
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
      for (int i = 0; i < quant_group(type); ++i) EXPECT_TRUE(std::isnan(y[static_cast<size_t>(i)])) << name_of(type) << " " << bad;
    }
  }
}

// Keys that are their mean for the most part: beside it the levels are those of what is left.
TEST(KvRow, TheMeanOfThePageBeforeCostsNoLevels) {
  for (const int d : {64, 80, 256}) {
    auto random = test::random_of(46, d, 0);
    std::vector<float> mean = test::normal_floats(random, d);
    for (float& x : mean) x *= 8;
    Plane pages[2] = {{DType::i4, d}, {DType::i4, d}};
    double errors[2] = {};
    for (int page = 0; page < 2; ++page) {
      pages[page].begin_after(page == 0 ? nullptr : pages);
      for (int place = 0; place < kPageTokens; ++place) {
        std::vector<float> x = test::normal_floats(random, d);
        for (size_t i = 0; i < x.size(); ++i) x[i] += mean[i];
        const auto y = pages[page].stored(x.data(), place);
        for (size_t i = 0; i < x.size(); ++i) errors[page] += (x[i] - y[i]) * (x[i] - y[i]) / (kPageTokens * d);
      }
    }
    EXPECT_EQ(pages[0].mean(), std::vector<float>(static_cast<size_t>(d)));
    for (size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(pages[1].mean()[i], mean[i], 0.8) << d;
    EXPECT_GE(errors[0], 0.2) << d;
    EXPECT_LE(errors[1], 0.012) << d;
  }
}

TEST(KvRow, EveryRowFindsItsMean) {
  Plane plane(DType::i4, 64);
  const std::vector<float> mean(64, 3.0F), zeros(64);
  plane.set_mean(mean);
  for (int place = 0; place < kPageTokens; ++place) plane.stored(zeros.data(), place);
  for (int place = 0; place < kPageTokens; ++place) EXPECT_EQ(plane.read(place), zeros) << place;
  EXPECT_EQ(plane.mean(), mean);
}

// A row that is not finite spoils its own page and no other.
TEST(KvRow, WhatIsNotFiniteStaysInItsPage) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x(64, 1.0F);
    Plane first(DType::i4, 64), second(DType::i4, 64);
    first.begin_after(nullptr);
    for (int place = 0; place < kPageTokens; ++place) {
      x[3] = place == 5 ? bad : 1.0F;
      first.stored(x.data(), place);
    }
    second.begin_after(&first);
    for (const float e : second.stored(std::vector<float>(64, 1.0F).data(), 0)) EXPECT_NEAR(e, 1.0F, 0.01F) << bad;
  }
}

TEST(KvRow, BytesOfARow) {
  EXPECT_EQ(kv_row_bytes(DType::f32, 64), 256U);
  EXPECT_EQ(kv_row_bytes(DType::bf16, 64), 128U);
  EXPECT_EQ(kv_row_bytes(DType::i8, 64), 68U);
  EXPECT_EQ(kv_row_bytes(DType::i4, 64), 41U);
  EXPECT_EQ(kv_row_bytes(DType::i4, 80), 51U);
  EXPECT_EQ(kv_head_bytes(DType::i8, 64), 64 * 68U);
  EXPECT_EQ(kv_head_bytes(DType::i4, 64), 64 * 43U);
}

INSTANTIATE_TEST_SUITE_P(Bodies, KvWriteTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
