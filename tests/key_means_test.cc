// key_means: the oracle against means in double, and the vectorised body on every instruction set of this CPU against the oracle, bit by
// bit.
#include "steps/key_means.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "cpu/cpu_bodies.h"
#include "hwy/highway.h"
#include "ref/ref_bodies.h"
#include "steps/convert.h"
#include "support/attention_case.h"

namespace bough {
namespace {

using test::AttentionCase;

constexpr std::byte kUntouched{0x5a};

// The rows that a body stores with gaps between them, which it must leave alone.
std::vector<std::byte> means_of(void (*body)(const KeyMeansArgs&), const AttentionCase& c, int head, int64_t token, int piece, int count) {
  const test::CaseShape& shape = c.shape();
  const size_t stride = kv_row_bytes(mean_type(shape.type), shape.d) + 24;
  std::vector<std::byte> rows(stride * static_cast<size_t>(count), kUntouched);
  body({shape.kv(), c.pages(0), shape.kv().k_offset(shape.layer, head), token, piece, count, rows.data(), stride});
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i % stride < stride - 24) continue;
    EXPECT_EQ(rows[i], kUntouched) << "byte " << i;
  }
  return rows;
}

// Runs f once for each instruction set that the vectorised bodies are compiled for and this CPU has.
template <typename F>
void on_every_target(const F& f) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(KeyMeans, OracleGivesTheMeanOfEachRun) {
  for (const DType type : kAllDTypes) {
    const AttentionCase c({.type = type, .kv_heads = 2, .d = 20}, {{.length = 300}}, 81);
    constexpr int kPiece = 6, kCount = 40;
    const std::vector<std::byte> rows = means_of(ref::key_means, c, 1, 50, kPiece, kCount);
    for (int run = 0; run < kCount; ++run) {
      std::vector<double> mean(20);
      for (int i = 0; i < kPiece; ++i) {
        const std::vector<float> key = c.key(0, 50 + run * kPiece + i, 1);
        for (size_t e = 0; e < mean.size(); ++e) mean[e] += static_cast<double>(key[e]) / kPiece;
      }
      const std::byte* row = &rows[static_cast<size_t>(run) * (kv_row_bytes(mean_type(type), 20) + 24)];
      for (size_t e = 0; e < mean.size(); ++e) {
        const double tolerance = type == DType::f32 ? 1e-6 : 1e-6 + std::abs(mean[e]) / 256;
        ASSERT_NEAR(load_element(row, e, mean_type(type)), mean[e], tolerance) << name_of(type) << ", run " << run << ", element " << e;
      }
    }
  }
}

TEST(KeyMeans, VectorsGiveTheOraclesBits) {
  struct Runs {
    int64_t token;
    int piece;
    int count;
  };
  for (const DType type : kAllDTypes) {
    for (const int d : {2, 6, 16, 20, 32, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192, 208, 256}) {
      const AttentionCase c({.type = type, .kv_heads = 2, .d = d}, {{.length = 400}}, 82);
      for (const Runs& r : {Runs{0, 8, 8}, {64, 8, 42}, {3, 2, 31}, {61, 5, 9}, {0, 64, 3}, {17, 128, 2}, {399, 1, 1}, {5, 8, 0}}) {
        SCOPED_TRACE(std::string(name_of(type)) + ", d " + std::to_string(d) + ", from " + std::to_string(r.token) + " by " +
                     std::to_string(r.piece));
        const std::vector<std::byte> wanted = means_of(ref::key_means, c, 1, r.token, r.piece, r.count);
        on_every_target([&] { EXPECT_EQ(means_of(cpu::key_means, c, 1, r.token, r.piece, r.count), wanted); });
      }
    }
  }
}

// Keys that are not finite, of either sign of zero, too large to sum and too small to divide.
TEST(KeyMeans, VectorsGiveTheOraclesBitsOfUnusualKeys) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const DType type : kAllDTypes) {
    for (const int d : {32, 64, 80}) {
      SCOPED_TRACE(std::string(name_of(type)) + ", d " + std::to_string(d));
      AttentionCase c({.type = type, .kv_heads = 1, .d = d}, {{.length = 128}}, 83);
      int64_t token = 1;
      for (const float x : {std::nanf(""), kInfinity, -kInfinity, -0.0F, kMost / 2, -kMost, 1e-45F, 1e-38F}) {
        std::vector<float> key = c.key(0, token, 0);
        key[static_cast<size_t>(token % d)] = x;
        c.set_key(0, token, 0, key);
        c.set_key(0, token + 9, 0, std::vector<float>(static_cast<size_t>(d), x));
        token += 13;
      }
      const std::vector<std::byte> wanted = means_of(ref::key_means, c, 0, 0, 8, 16);
      on_every_target([&] { EXPECT_EQ(means_of(cpu::key_means, c, 0, 0, 8, 16), wanted); });
    }
  }
}

}  // namespace
}  // namespace bough
