// The AMX kernels by emulated instructions, against loops in double, on every CPU; tile_test runs the real ones where there are any.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "steps/convert.h"

namespace {

// The eight tiles of one thread, 16 rows of 64 bytes each.
struct Tiles {
  bool configured = false;
  alignas(64) std::array<std::array<std::array<std::byte, 64>, 16>, 8> rows{};

  void load(size_t tile, const void* base, int64_t stride) {
    EXPECT_TRUE(configured);
    for (int64_t r = 0; r < 16; ++r)
      std::memcpy(rows[tile][static_cast<size_t>(r)].data(), static_cast<const std::byte*>(base) + r * stride, 64);
  }
  void store(size_t tile, void* base, int64_t stride) const {
    for (int64_t r = 0; r < 16; ++r) std::memcpy(static_cast<std::byte*>(base) + r * stride, rows[tile][static_cast<size_t>(r)].data(), 64);
  }
  void zero(size_t tile) { rows[tile] = {}; }
  template <typename T>
  T& at(size_t tile, size_t row, size_t i) {
    return reinterpret_cast<T*>(rows[tile][row].data())[i];
  }
  // sums += a . b by pairs, in the order of the instruction.
  void multiply(size_t sums, size_t a, size_t b) {
    for (size_t m = 0; m < 16; ++m) {
      for (size_t k = 0; k < 32; ++k) {
        const float x = bough::from_bf16(at<uint16_t>(a, m, k));
        for (size_t n = 0; n < 16; ++n) at<float>(sums, m, n) += x * bough::from_bf16(at<uint16_t>(b, k / 2, 2 * n + k % 2));
      }
    }
  }
};
Tiles tiles;  // NOLINT: the instructions' own state is global too

}  // namespace

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadd(tile, base, stride) tiles.load(tile, base, stride)
#define _tile_stored(tile, base, stride) tiles.store(tile, base, stride)
#define _tile_zero(tile) tiles.zero(tile)
#define _tile_dpbf16ps(sums, a, b) tiles.multiply(sums, a, b)
#define _tile_loadconfig(config) (tiles.configured = *reinterpret_cast<const uint8_t*>(config) == 1)
#define _tile_release() (tiles.configured = false)
#define BOUGH_EMULATED_AMX
#include "cpu/tile_amx.cc"  // NOLINT: for the functions that it keeps to itself

namespace bough::cpu {
namespace {

std::vector<uint16_t> random_bf16(unsigned seed, size_t count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> x(count);
  for (uint16_t& e : x) e = to_bf16(normal(random));
  return x;
}
std::vector<float> floats(const std::vector<uint16_t>& x) {
  std::vector<float> y;
  for (const uint16_t e : x) y.push_back(from_bf16(e));
  return y;
}

class TileAmx : public testing::Test {
 protected:
  void SetUp() override { begin(); }
  void TearDown() override { end(); }
};

TEST_F(TileAmx, ScoresAndTheirMaxima) {
  constexpr size_t kStride = 40;
  for (const size_t d : {32U, 64U, 96U, 256U, 512U}) {
    const auto tile = random_bf16(1, d * 32);
    for (const size_t count : {0U, 1U, 3U, 12U, 15U, 16U, 17U, 31U, 32U, 33U, 48U, 70U}) {
      const auto rows = random_bf16(2, count * d);
      std::vector<float> s(count * kStride, 7.0F), best(32, -1.0F);
      scores(rows.data(), static_cast<int>(count), static_cast<int>(d), tile.data(), s.data(), kStride);
      max_scores(rows.data(), 1, static_cast<int>(count), static_cast<int>(d), tile.data(), best.data());
      for (size_t j = 0; j < 32; ++j) {
        float top = -1.0F;
        for (size_t r = 0; r < count; ++r) {
          double sum = 0;
          for (size_t e = 0; e < d; ++e) sum += double{from_bf16(rows[r * d + e])} * from_bf16(tile[(e / 2 * 32 + j) * 2 + e % 2]);
          ASSERT_NEAR(s[r * kStride + j], sum, 1e-4) << "d " << d << " rows " << count;
          top = std::max(top, s[r * kStride + j]);
        }
        ASSERT_EQ(best[j], top) << "d " << d << " rows " << count;
      }
      for (size_t r = 0; r < count; ++r) ASSERT_EQ(std::count(&s[r * kStride + 32], &s[r * kStride] + kStride, 7.0F), 8);
    }
  }
}

TEST_F(TileAmx, MaximaOfGroups) {
  for (const size_t d : {64U, 96U, 128U}) {
    const auto tile = random_bf16(3, d * 32);
    for (const size_t count : {1U, 3U, 12U, 16U, 20U, 48U}) {
      for (const size_t groups : {0U, 1U, 2U, 5U, 64U}) {
        const auto rows = random_bf16(4, groups * count * d);
        std::vector<float> s(groups * count * 32), best(groups * 32 + 32, -1.0F);
        scores(rows.data(), static_cast<int>(groups * count), static_cast<int>(d), tile.data(), s.data(), 32);
        best.back() = 7.0F;
        max_scores(rows.data(), static_cast<int>(groups), static_cast<int>(count), static_cast<int>(d), tile.data(), best.data());
        ASSERT_EQ(best.back(), 7.0F);
        for (size_t i = 0; i < groups * 32; ++i) {
          float top = -1.0F;
          for (size_t r = 0; r < count; ++r) top = std::max(top, s[(i / 32 * count + r) * 32 + i % 32]);
          ASSERT_EQ(best[i], top) << groups << " groups of " << count << ", d " << d;
        }
      }
    }
  }
}

TEST_F(TileAmx, AccumulateScalesAndAdds) {
  for (const size_t d : {24U, 64U, 70U, 128U}) {
    const auto columns = static_cast<size_t>(padded(static_cast<int>(d)));
    for (const size_t keys : {32U, 256U, 512U}) {
      const auto v = random_bf16(5, keys * columns);
      for (const size_t count : {0U, 1U, 3U, 15U, 16U, 17U, 32U, 49U}) {
        const auto p = random_bf16(6, count * keys);
        const auto alpha = floats(random_bf16(7, count)), before = floats(random_bf16(8, count * columns));
        auto o = before;
        o.resize(o.size() + 16, 7.0F);
        accumulate(p.data(), static_cast<int>(count), static_cast<int>(keys), v.data(), static_cast<int>(d), alpha.data(), o.data());
        ASSERT_EQ(std::count(o.end() - 16, o.end(), 7.0F), 16);
        for (size_t i = 0; i < before.size(); ++i) {
          const size_t r = i / columns, e = i % columns;
          double want = double{alpha[r]} * before[i];
          for (size_t j = 0; j < keys; ++j) want += double{from_bf16(p[r * keys + j])} * from_bf16(v[(j / 2 * columns + e) * 2 + j % 2]);
          ASSERT_NEAR(o[i], want, 2e-4) << "d " << d << " keys " << keys << " rows " << count;
        }
      }
    }
  }
}

}  // namespace
}  // namespace bough::cpu
