// Tile kernels: every function of every instruction set that this CPU has, against a scalar loop in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "cpu/tile.h"
#include "hwy/highway.h"
#include "steps/kv_row.h"
#include "support/attention_case.h"

namespace bough::cpu {
namespace {

using test::normal_floats;
using test::random_of;

// Kernels and the KV type that they read.
struct TileCase {
  const TileOps* ops;
  DType type;
};

void PrintTo(const TileCase& c, std::ostream* out) { *out << c.ops->name << ", KV " << name_of(c.type); }

std::vector<TileCase> tile_cases() {
  std::vector<TileCase> cases;
  for (const TileOps* ops : {tile_amx(), tile_bf16()}) {
    if (ops == nullptr) continue;
    for (const DType type : {DType::bf16, DType::i8, DType::i4}) cases.push_back({ops, type});
  }
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    for (const DType type : kAllDTypes) cases.push_back({tile_f32(), type});
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return cases;
}

constexpr size_t kGuard = 64;
constexpr std::byte kUntouched{0x5a};

// Memory with a guard behind it.
class Memory {
 public:
  explicit Memory(size_t bytes) : data_(bytes + kGuard, kUntouched), bytes_(bytes) {}
  void* get() { return data_.data(); }

  bool guarded() const {
    return std::all_of(data_.end() - kGuard, data_.end(), [](std::byte b) { return b == kUntouched; });
  }
  float element(size_t i, size_t elem) const { return load_element(data_.data(), i, elem == 2 ? DType::bf16 : DType::f32); }

 private:
  std::vector<std::byte> data_;
  size_t bytes_;
};

// 32 rows of `type`; those in `null` are missing.
struct StoredRows {
  std::vector<std::byte> data;
  std::vector<const std::byte*> rows;
  std::vector<float> values;  // [32][d] as stored; 0 where missing
};
StoredRows stored_rows(DType type, int d, int first_missing, uint64_t seed) {
  StoredRows s;
  auto random = random_of(seed, d, first_missing);
  s.values = normal_floats(random, int64_t{32} * d);
  const size_t bytes = kv_row_bytes(type, d), mean = kv_mean_bytes(type, d);
  s.data.resize(mean + 32 * bytes);
  for (size_t i = 0; i < mean / 2; ++i) store_element(s.data.data(), i, DType::bf16, 2.0F * std::sin(static_cast<float>(i)));
  for (int r = 0; r < 32; ++r) {
    const bool missing = r >= first_missing || (first_missing < 32 && r == 3);
    std::byte* row = s.data.data() + mean + static_cast<size_t>(r) * bytes;
    float* x = &s.values[static_cast<size_t>(r * d)];
    store_row(x, type, d, r, row);
    s.rows.push_back(missing ? nullptr : row);
    if (missing) {
      std::fill_n(x, d, 0.0F);
    } else {
      load_row(row, type, d, x);
    }
  }
  return s;
}

// Where a tile keeps element e of key (or value) j.
size_t k_index(size_t elem, int e, int j) { return static_cast<size_t>(elem == 2 ? (e / 2 * 32 + j) * 2 + e % 2 : e * 32 + j); }
size_t v_index(size_t elem, int d, int j, int e) {
  return static_cast<size_t>(elem == 2 ? (j / 2 * padded(d) + e) * 2 + j % 2 : j * padded(d) + e);
}

// Elements that the kernels take exactly: bf16 values in every case.
std::vector<float> exact_floats(uint64_t seed, int64_t count) {
  auto random = random_of(seed, count, 0);
  auto x = normal_floats(random, count);
  for (float& y : x) y = rounded(y, DType::bf16);
  return x;
}

const std::vector<int>& dims() {
  static const std::vector<int> all = {24, 32, 64, 70, 80, 96, 128, 256};
  return all;
}

class TileTest : public testing::TestWithParam<TileCase> {
 protected:
  const TileOps& ops() const { return *GetParam().ops; }
  DType type() const { return GetParam().type; }
  void turn_and_compare(const test::CaseShape& shape) const;
  Memory packed(const std::vector<float>& x) const {
    Memory rows(x.size() * ops().elem);
    for (size_t i = 0; i < x.size(); ++i)
      store_element(static_cast<std::byte*>(rows.get()), i, ops().elem == 2 ? DType::bf16 : DType::f32, x[i]);
    return rows;
  }
};

TEST(TileSets, EveryInstructionSetOfThisCpuIsTested) {
  std::vector<std::string> names;
  for (const TileCase& c : tile_cases()) names.emplace_back(c.ops->name);
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
#if defined(__x86_64__)
  EXPECT_EQ(has("avx512_bf16"), __builtin_cpu_supports("avx512bf16") != 0);
  EXPECT_EQ(has("AVX3"), __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(has("AVX2"), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(has("SSE4"), __builtin_cpu_supports("sse4.2") != 0);
#endif
  EXPECT_STREQ(tile_f32()->name, hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
}

TEST_P(TileTest, PackRowsRoundsToTheKvType) {
  for (const int64_t count : {2, 14, 16, 18, 32, 80, 128, 130}) {
    auto random = random_of(71, count, 0);
    const auto x = normal_floats(random, count);
    Memory rows(static_cast<size_t>(count) * ops().elem);
    ops().pack_rows(x.data(), count, type(), rows.get());
    EXPECT_TRUE(rows.guarded()) << count;
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(rows.element(i, ops().elem), rounded(x[i], type())) << count;
  }
}

TEST_P(TileTest, PackKeysTransposes) {
  for (const int d : dims()) {
    for (const int missing : {32, 31, 17, 5, 0}) {
      const StoredRows keys = stored_rows(type(), d, missing, 72);
      Memory tile(ops().k_tile_bytes(d));
      ops().pack_keys(keys.rows.data(), type(), d, RopeParams{}, nullptr, nullptr, tile.get());
      EXPECT_TRUE(tile.guarded());
      for (int j = 0; j < 32; ++j) {
        for (int e = 0; e < d; ++e) {
          ASSERT_EQ(tile.element(k_index(ops().elem, e, j), ops().elem), keys.values[static_cast<size_t>(j * d + e)]) << "d " << d;
        }
      }
    }
  }
}

void TileTest::turn_and_compare(const test::CaseShape& shape) const {
  const int d = shape.d;
  const RopeTable rope = test::AttentionCase(shape, {{.length = 1}}, 1).rope(128);
  const StoredRows keys = stored_rows(type(), d, 29, 73);
  Memory tile(ops().k_tile_bytes(d));
  ops().pack_keys(keys.rows.data(), type(), d, rope.params(), rope.cos_tile(2), rope.sin_tile(2), tile.get());
  EXPECT_TRUE(tile.guarded());
  for (int j = 0; j < 32; ++j) {
    const auto row = std::span(keys.values).subspan(static_cast<size_t>(j * d), static_cast<size_t>(d));
    const auto want = test::turned(row, 1.0, 64 + j, shape);
    for (int e = 0; e < d; ++e) {
      const float got = tile.element(k_index(ops().elem, e, j), ops().elem);
      const double exact = want[static_cast<size_t>(e)];
      // Rounding to bf16 errs by half a unit of eight bits at most.
      const double tolerance = 2e-6 + (type() != DType::f32 ? std::abs(exact) / 256 : 0.0);
      ASSERT_NEAR(got, exact, tolerance) << shape.name() << " key " << j << " element " << e;
      ASSERT_EQ(got, rounded(got, type()));
    }
  }
}

// All of a head, half of it, and halves that meet inside a pair of elements.
TEST_P(TileTest, PackKeysTurnsEachKeyByItsOwnAngle) {
  for (const int d : dims()) {
    for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
      for (const int rotated : {d, d / 2, 10, 2})
        turn_and_compare({.heads = 1, .kv_heads = 1, .d = d, .layout = layout, .rotated = rotated, .magnitude = rotated == d ? 1 : 1.2});
    }
  }
}

TEST_P(TileTest, PackValuesPadsWithZeros) {
  for (const int d : dims()) {
    for (const int missing : {32, 31, 17, 0}) {
      const StoredRows values = stored_rows(type(), d, missing, 74);
      Memory tile(ops().v_tile_bytes(d));
      ops().pack_values(values.rows.data(), type(), d, tile.get());
      EXPECT_TRUE(tile.guarded());
      for (int j = 0; j < 32; ++j) {
        for (int e = 0; e < padded(d); ++e) {
          const float want = e < d ? values.values[static_cast<size_t>(j * d + e)] : 0.0F;
          ASSERT_EQ(tile.element(v_index(ops().elem, d, j, e), ops().elem), want) << "d " << d;
        }
      }
    }
  }
}

TEST_P(TileTest, ScoresAndTheirMaximaForEveryCountOfRows) {
  for (const int d : dims()) {
    const StoredRows keys = stored_rows(DType::bf16, d, 32, 75);
    Memory tile(ops().k_tile_bytes(d));
    ops().pack_keys(keys.rows.data(), DType::bf16, d, RopeParams{}, nullptr, nullptr, tile.get());
    for (int count = 0; count <= 70; count += count < 34 ? 1 : 7) {
      const auto x = exact_floats(76, int64_t{count} * d);
      Memory rows = packed(x);
      constexpr int64_t kStride = 40;
      std::vector<float> s(static_cast<size_t>(kStride * count), 7.0F), best(32, test::kMinusInfinity);
      best[5] = 1e6F;
      const TileScope scope(ops());
      ops().scores(rows.get(), count, d, tile.get(), s.data(), kStride);
      ops().max_scores(rows.get(), 1, count, d, tile.get(), best.data());
      for (int j = 0; j < 32; ++j) {
        double top = j == 5 ? 1e6 : -INFINITY;
        for (int r = 0; r < count; ++r) {
          double sum = 0;
          for (int e = 0; e < d; ++e) sum += double{x[static_cast<size_t>(r * d + e)]} * keys.values[static_cast<size_t>(j * d + e)];
          ASSERT_NEAR(s[static_cast<size_t>(r * kStride + j)], sum, 2e-5) << "d " << d << " rows " << count;
          top = std::max(top, sum);
        }
        if (count == 0) {
          ASSERT_EQ(best[static_cast<size_t>(j)], static_cast<float>(top));
        } else {
          ASSERT_NEAR(best[static_cast<size_t>(j)], top, 2e-5) << "d " << d << " rows " << count;
        }
      }
      for (int r = 0; r < count; ++r)
        ASSERT_EQ(std::count(&s[static_cast<size_t>(r * kStride + 32)], &s[static_cast<size_t>(r * kStride)] + kStride, 7.0F), 8);
    }
  }
}

TEST_P(TileTest, MaximaOfGroupsOfRows) {
  for (const auto [d, count, groups] :
       {std::array{64, 12, 64}, {64, 12, 5}, {64, 1, 3}, {128, 16, 2}, {96, 20, 5}, {24, 3, 7}, {64, 48, 1}}) {
    const StoredRows keys = stored_rows(DType::bf16, d, 32, 85);
    Memory tile(ops().k_tile_bytes(d));
    ops().pack_keys(keys.rows.data(), DType::bf16, d, RopeParams{}, nullptr, nullptr, tile.get());
    Memory rows = packed(exact_floats(86, int64_t{groups} * count * d));
    std::vector<float> s(static_cast<size_t>(groups * count * 32)), best(static_cast<size_t>(groups * 32), -1.0F);
    const TileScope scope(ops());
    ops().scores(rows.get(), groups * count, d, tile.get(), s.data(), 32);
    ops().max_scores(rows.get(), groups, count, d, tile.get(), best.data());
    for (size_t i = 0; i < best.size(); ++i) {
      float top = -1.0F;
      for (size_t r = i / 32 * count; r < (i / 32 + 1) * count; ++r) top = std::max(top, s[r * 32 + i % 32]);
      ASSERT_EQ(best[i], top) << "d " << d << " rows " << count << " key " << i % 32 << " of group " << i / 32 << " of " << groups;
    }
  }
}

// Two groups of keys one after the other against softmax in double over all that the row has seen.
TEST_P(TileTest, SoftmaxRunsOverGroupsOfKeys) {
  for (const int keys : {32, 64, 96, 256}) {
    for (const float spread : {1.0F, 30.0F}) {
      std::vector<int> seen = {0, 1, 2, 15, 16, 17, 31, 32, keys - 1, keys};
      for (int& v : seen) v = std::min(v, keys);
      const auto rows = static_cast<int>(seen.size());
      constexpr int64_t kStride = 260;
      std::vector<float> m(seen.size(), test::kMinusInfinity);
      std::vector<float> l(seen.size());
      std::vector<float> alpha(seen.size());
      std::vector<std::vector<double>> all(seen.size());
      std::vector<double> top(seen.size(), -INFINITY);
      for (int pass = 0; pass < 3; ++pass) {
        auto random = random_of(77, keys, pass);
        auto s = normal_floats(random, kStride * rows);
        for (float& x : s) x = spread * x + (pass == 1 ? 40.0F : -30.0F);
        Memory p(static_cast<size_t>(rows * keys) * ops().elem);
        ops().softmax(s.data(), kStride, rows, keys, nullptr, seen.data(), m.data(), l.data(), alpha.data(), p.get());
        EXPECT_TRUE(p.guarded());
        for (size_t r = 0; r < seen.size(); ++r) {
          const double before = top[r];
          for (int j = 0; j < seen[r]; ++j) {
            all[r].push_back(s[r * kStride + static_cast<size_t>(j)]);
            top[r] = std::max(top[r], all[r].back());
          }
          double sum = 0;
          for (const double x : all[r]) sum += std::exp(x - top[r]);
          ASSERT_EQ(m[r], static_cast<float>(top[r])) << "pass " << pass << " row " << r;
          ASSERT_NEAR(l[r], sum, 2e-6 * sum) << "pass " << pass << " row " << r;
          ASSERT_NEAR(alpha[r], seen[r] == 0 ? 1.0 : std::exp(before - top[r]), 2e-6) << "pass " << pass << " row " << r;
          for (int j = 0; j < keys; ++j) {
            const float got = p.element(r * static_cast<size_t>(keys) + static_cast<size_t>(j), ops().elem);
            const double x = j < seen[r] ? s[r * kStride + static_cast<size_t>(j)] - top[r] : 0.0;  // rounded to f32 by the kernels
            const double want = j < seen[r] ? std::exp(x) : 0.0;
            if (j >= seen[r]) {
              ASSERT_EQ(got, 0.0F);
            }
            ASSERT_NEAR(got, want, 1e-37 + want * (1e-6 + 1.2e-7 * std::abs(x) + (ops().elem == 2 ? 1.0 / 256 : 0.0)))
                << "pass " << pass << " row " << r << " key " << j;
          }
        }
      }
    }
  }
}

// What a row does not see at the front is as if it were not there.
TEST_P(TileTest, SoftmaxHidesTheFront) {
  constexpr int kKeys = 96;
  constexpr int64_t kStride = 100;
  const std::vector<int> hidden = {0, 1, 15, 16, 17, 40, 95, 96, 96, 20};
  const std::vector<int> seen = {96, 96, 90, 33, 17, 96, 96, 96, 20, 20};
  const auto rows = static_cast<int>(seen.size());
  auto random = random_of(83, 0, 0);
  auto s = normal_floats(random, kStride * rows);
  for (size_t r = 0; r < seen.size(); ++r) s[r * kStride] = 200;  // the highest of a row is hidden in all rows but the first
  std::vector<float> m(seen.size(), -0.5F);
  std::vector<float> l(seen.size(), 2.0F);
  std::vector<float> alpha(seen.size());
  Memory p(static_cast<size_t>(rows) * kKeys * ops().elem);
  ops().softmax(s.data(), kStride, rows, kKeys, hidden.data(), seen.data(), m.data(), l.data(), alpha.data(), p.get());
  EXPECT_TRUE(p.guarded());
  for (size_t r = 0; r < seen.size(); ++r) {
    double top = -0.5;
    for (int j = hidden[r]; j < seen[r]; ++j) top = std::max(top, double{s[r * kStride + static_cast<size_t>(j)]});
    double sum = 2 * std::exp(-0.5 - top);
    for (int j = hidden[r]; j < seen[r]; ++j) sum += std::exp(s[r * kStride + static_cast<size_t>(j)] - top);
    EXPECT_EQ(m[r], static_cast<float>(top)) << r;
    EXPECT_NEAR(l[r], sum, 2e-6 * sum) << r;
    EXPECT_NEAR(alpha[r], std::exp(-0.5 - top), 2e-6) << r;
    for (int j = 0; j < kKeys; ++j) {
      const bool sees = j >= hidden[r] && j < seen[r];
      const double want = sees ? std::exp(s[r * kStride + static_cast<size_t>(j)] - top) : 0.0;
      EXPECT_NEAR(p.element(r * kKeys + static_cast<size_t>(j), ops().elem), want, 1e-37 + want * (ops().elem == 2 ? 1.0 / 256 : 2e-6))
          << r;
    }
  }
}

TEST_P(TileTest, SoftcapIsTanh) {
  for (const float cap : {0.5F, 30.0F, 50.0F}) {
    for (const float spread : {1e-6F, 0.1F, 10.0F, 1e4F, 3e38F}) {
      auto random = random_of(84, 0, 0);
      auto s = normal_floats(random, 3 * 100);
      for (float& x : s) x = std::clamp(spread * x, -3e38F, 3e38F);
      const auto before = s;
      ops().softcap(s.data(), 100, 3, 96, cap);
      for (size_t i = 0; i < s.size(); ++i) {
        const double want = i % 100 < 96 ? cap * std::tanh(double{before[i]} / cap) : before[i];
        ASSERT_NEAR(s[i], want, i % 100 < 96 ? 1e-6 * cap : 0) << "cap " << cap << " of " << before[i];
      }
    }
  }
}

TEST_P(TileTest, AccumulateScalesAndAdds) {
  for (const int d : dims()) {
    for (const int keys : {32, 64, 256, 512}) {
      Memory tiles(ops().v_tile_bytes(d) * static_cast<size_t>(keys / 32));
      std::vector<float> values;
      for (int t = 0; t < keys / 32; ++t) {
        const StoredRows rows = stored_rows(DType::bf16, d, 32, 78 + static_cast<uint64_t>(t));
        ops().pack_values(rows.rows.data(), DType::bf16, d,
                          static_cast<std::byte*>(tiles.get()) + static_cast<size_t>(t) * ops().v_tile_bytes(d));
        values.insert(values.end(), rows.values.begin(), rows.values.end());
      }
      for (const int count : {0, 1, 2, 3, 4, 5, 11, 12, 13, 15, 16, 17, 24, 25, 32, 33, 64}) {
        const auto weights = exact_floats(79, int64_t{count} * keys);
        const auto alpha = exact_floats(80, count), before = exact_floats(81, int64_t{count} * padded(d));
        auto o = before;
        o.resize(o.size() + 16, 7.0F);
        Memory p = packed(weights);
        const TileScope scope(ops());
        ops().accumulate(p.get(), count, keys, tiles.get(), d, alpha.data(), o.data());
        ASSERT_EQ(std::count(o.end() - 16, o.end(), 7.0F), 16);
        for (int r = 0; r < count; ++r) {
          for (int e = 0; e < d; ++e) {
            double want = double{alpha[static_cast<size_t>(r)]} * before[static_cast<size_t>(r * padded(d) + e)];
            for (int j = 0; j < keys; ++j)
              want += double{weights[static_cast<size_t>(r * keys + j)]} * values[static_cast<size_t>(j * d + e)];
            ASSERT_NEAR(o[static_cast<size_t>(r * padded(d) + e)], want, keys > 256 ? 1e-4 : 5e-5)
                << "d " << d << " keys " << keys << " rows " << count;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, TileTest, testing::ValuesIn(tile_cases()),
                         [](const auto& info) { return std::string(info.param.ops->name) + "_kv_" + name_of(info.param.type); });

}  // namespace
}  // namespace bough::cpu
