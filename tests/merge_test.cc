// merge: attention over parts of a context, merged, is attention over the whole; empty parts count for nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/attention_case.h"

namespace bough {
namespace {

using test::kMinusInfinity;

struct Parts {
  int64_t rows = 0;
  int64_t parts = 0;
  int d = 0;
  std::vector<float> o;
  std::vector<float> lse;
};

struct Merged {
  std::vector<float> o;
  std::vector<float> lse;
};

Merged merge(const AttentionBodies& body, const Parts& parts) {
  Merged merged{std::vector<float>(static_cast<size_t>(parts.rows * parts.d), 7.0F),
                std::vector<float>(static_cast<size_t>(parts.rows), 7.0F)};
  body.merge({parts.rows, parts.parts, parts.d, parts.o.data(), parts.lse.data(), merged.o.data(), merged.lse.data()});
  std::vector<float> o(merged.o.size());
  body.merge({parts.rows, parts.parts, parts.d, parts.o.data(), parts.lse.data(), o.data(), nullptr});
  EXPECT_TRUE(test::same_bits(o, merged.o)) << "without lse";
  return merged;
}

// Softmax attention over keys [begin, end) of given scores and values, in double.
void attend_part(const std::vector<float>& scores, const std::vector<float>& values, int d, size_t begin, size_t end, Parts& out) {
  double top = -std::numeric_limits<double>::infinity();
  for (size_t i = begin; i < end; ++i) top = std::max(top, double{scores[i]});
  double sum = 0;
  std::vector<double> o(static_cast<size_t>(d));
  for (size_t i = begin; i < end; ++i) {
    const double p = std::exp(scores[i] - top);
    sum += p;
    for (size_t e = 0; e < o.size(); ++e) o[e] += p * values[i * o.size() + e];
  }
  for (const double x : o) out.o.push_back(sum > 0 ? static_cast<float>(x / sum) : 0.0F);
  out.lse.push_back(static_cast<float>(top + std::log(sum)));
}

class MergeTest : public testing::TestWithParam<std::string> {
 protected:
  const AttentionBodies& body() const { return test::body_named(GetParam()); }
};

TEST_P(MergeTest, PartsMakeTheWhole) {
  constexpr size_t kKeys = 100;
  for (const std::vector<size_t>& cuts :
       {std::vector<size_t>{0, 100}, {0, 1, 2, 100}, {0, 0, 50, 50, 100, 100}, {0, 10, 20, 40, 80, 100}}) {
    for (const int d : {32, 80, 128}) {
      auto random = test::random_of(31, d, 0);
      const int64_t parts = static_cast<int64_t>(cuts.size()) - 1;
      Parts split{5, parts, d, {}, {}};
      Parts whole{5, 1, d, {}, {}};
      for (int row = 0; row < 5; ++row) {
        auto scores = test::normal_floats(random, kKeys);
        for (float& s : scores) s = 20 * s - 1000 * static_cast<float>(row);  // exp(lse) is 0 in f32; its last place is 2e-4
        const auto values = test::normal_floats(random, static_cast<int64_t>(kKeys) * d);
        for (size_t i = 0; i + 1 < cuts.size(); ++i) attend_part(scores, values, d, cuts[i], cuts[i + 1], split);
        attend_part(scores, values, d, 0, kKeys, whole);
      }
      const Merged merged = merge(body(), split);
      EXPECT_LE(test::relative_error(merged.o, whole.o), 1e-4) << parts << " parts, d " << d;
      EXPECT_LE(test::relative_error(merged.lse, whole.lse), 1e-6) << parts << " parts, d " << d;
    }
  }
}

TEST_P(MergeTest, OnePartIsItself) {
  auto random = test::random_of(32, 0, 0);
  const Parts part{3, 1, 64, test::normal_floats(random, 3 * 64), test::normal_floats(random, 3)};
  const Merged merged = merge(body(), part);
  EXPECT_TRUE(test::same_bits(merged.o, part.o));
  EXPECT_TRUE(test::same_bits(merged.lse, part.lse));
}

TEST_P(MergeTest, EmptyPartsChangeNoBit) {
  auto random = test::random_of(33, 0, 0);
  const auto a = test::normal_floats(random, 64);
  const auto b = test::normal_floats(random, 64);
  Parts two{1, 2, 64, a, {1.5F, -0.25F}};
  two.o.insert(two.o.end(), b.begin(), b.end());
  Parts with_empty{1, 4, 64, std::vector<float>(64), {kMinusInfinity, 1.5F, -0.25F, kMinusInfinity}};
  with_empty.o.insert(with_empty.o.end(), two.o.begin(), two.o.end());
  with_empty.o.resize(4 * 64);
  const Merged want = merge(body(), two);
  const Merged got = merge(body(), with_empty);
  EXPECT_TRUE(test::same_bits(got.o, want.o));
  EXPECT_TRUE(test::same_bits(got.lse, want.lse));
}

TEST_P(MergeTest, AllEmptyGivesZeroAndMinusInfinity) {
  const Parts empty{2, 3, 64, std::vector<float>(2 * 3 * 64), std::vector<float>(6, kMinusInfinity)};
  const Merged merged = merge(body(), empty);
  EXPECT_THAT(merged.o, testing::Each(0.0F));
  EXPECT_THAT(merged.lse, testing::Each(kMinusInfinity));
}

// With no rotation the ranks do not matter, so the sinks with the selection and the window can be attended to apart. A third
// part sees nothing.
TEST_P(MergeTest, AttendOverPartsOfAContextMergesToTheWhole) {
  const DType type = GetParam().ends_with("_bf16") ? DType::bf16 : DType::f32;
  const test::AttentionCase c({.type = type}, {{.length = 300, .first_row = 260, .tail = 40}}, 34);
  const test::Input input = c.input();
  const RopeTable rope = c.rope(512, 0);
  const test::Lists whole = test::random_lists(input.batch, {.sinks = 64, .window = 64, .most = 9}, 0);
  test::Lists parts[3] = {whole, whole, whole};
  parts[1].spec.sinks = 0;
  for (const QueryBlock& block : input.batch.blocks) {
    const auto b = static_cast<size_t>(&block - input.batch.blocks.data());
    parts[0].w0[b] = block.r1();
    parts[1].count[b] = 0;
    parts[2].w0[b] = block.r1();
    parts[2].count[b] = 0;
  }
  parts[2].spec.sinks = 0;
  Parts split{input.batch.rows() * 6, 3, 64, std::vector<float>(input.q.size() * 3), std::vector<float>(input.q.size() / 64 * 3)};
  Merged want;
  for (int part = 0; part < 4; ++part) {
    std::vector<float> o(input.q.size());
    std::vector<float> lse(input.q.size() / 64);
    const test::Lists& lists = part < 3 ? parts[part] : whole;
    body().attend(
        {&input.batch, 0, c.shape().kv(), c.shape().head_shape(), 1, input.q.data(), lists.view(), &rope, 0, {}, o.data(), lse.data()});
    if (part == 2) {
      EXPECT_THAT(o, testing::Each(0.0F));
      EXPECT_THAT(lse, testing::Each(kMinusInfinity));
    }
    if (part == 3) want = {o, lse};
    for (size_t row = 0; row < lse.size() && part < 3; ++row) {
      std::copy_n(&o[row * 64], 64, &split.o[(row * 3 + static_cast<size_t>(part)) * 64]);
      split.lse[row * 3 + static_cast<size_t>(part)] = lse[row];
    }
  }
  const Merged merged = merge(body(), split);
  const double tolerance = type == DType::f32 ? 1e-5 : 1e-2;
  EXPECT_LE(test::relative_error(merged.o, want.o), tolerance);
  EXPECT_LE(test::absolute_error(merged.lse, want.lse), tolerance);
}

INSTANTIATE_TEST_SUITE_P(Bodies, MergeTest, testing::ValuesIn(test::body_names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
