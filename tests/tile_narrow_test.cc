// Narrowed tiles give the bits of the tiles that they were made of.
#include <gtest/gtest.h>

#include <vector>

#include "cpu/tile.h"
#include "hwy/highway.h"
#include "steps/convert.h"
#include "support/attention_case.h"

namespace bough::cpu {
namespace {

std::vector<float> bf16_values(uint64_t seed, int64_t count) {
  auto random = test::random_of(seed, count, 0);
  auto x = test::normal_floats(random, count);
  for (float& y : x) y = rounded(y, DType::bf16);
  return x;
}

// Every instruction set that this CPU has.
class TileNarrow : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ops_ = tile_f32();
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  std::vector<uint16_t> narrowed(const std::vector<float>& tile) const {
    std::vector<uint16_t> out(tile.size() + 1, 0x5a5a);
    ops_->narrow(tile.data(), static_cast<int64_t>(tile.size()), out.data());
    EXPECT_EQ(out.back(), 0x5a5a);
    return out;
  }
  const TileOps* ops_ = nullptr;
};

TEST_P(TileNarrow, KeepsTheElements) {
  for (const int64_t count : {1, 7, 8, 33, 2048}) {
    const auto x = bf16_values(1, count);
    const auto y = narrowed(x);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(from_bf16(y[i]), x[i]);
  }
}

TEST_P(TileNarrow, ProductsHaveTheSameBits) {
  for (const int d : {24, 64, 70, 128}) {
    const auto keys = bf16_values(2, int64_t{d} * 32);
    const auto narrow_keys = narrowed(keys);
    constexpr int kKeys = 96;
    const auto values = bf16_values(3, int64_t{kKeys} * padded(d));
    const auto narrow_values = narrowed(values);
    for (const int count : {0, 1, 3, 12, 25}) {
      const auto rows = bf16_values(4, int64_t{count} * d);
      std::vector<float> s(static_cast<size_t>(count) * 32), same(s.size());
      ops_->scores(rows.data(), count, d, keys.data(), s.data(), 32);
      ops_->scores_narrow(rows.data(), count, d, narrow_keys.data(), same.data(), 32);
      EXPECT_TRUE(test::same_bits(s, same)) << "d " << d << " rows " << count;
      const auto p = bf16_values(5, int64_t{count} * kKeys), alpha = bf16_values(6, count);
      auto o = bf16_values(7, int64_t{count} * padded(d)), again = o;
      ops_->accumulate(p.data(), count, kKeys, values.data(), d, alpha.data(), o.data());
      ops_->accumulate_narrow(p.data(), count, kKeys, narrow_values.data(), d, alpha.data(), again.data());
      EXPECT_TRUE(test::same_bits(o, again)) << "d " << d << " rows " << count;
    }
  }
}

TEST_P(TileNarrow, OnlyF32CachesAreNotNarrowed) {
  for (const DType type : kAllDTypes) EXPECT_EQ(ops_->narrows(type), type != DType::f32);
  for (const TileOps* ops : {tile_bf16(), tile_amx()}) EXPECT_TRUE(ops == nullptr || !ops->narrows(DType::bf16));
}

INSTANTIATE_TEST_SUITE_P(Targets, TileNarrow, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace bough::cpu
