// HiP's promise: where scores are smooth along the text, the tree search keeps more attention mass than random pruning of the same size.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "steps/tree.h"
#include "support/attention_case.h"

namespace bough {
namespace {

constexpr int64_t kSinks = 64, kLength = 4097, kWindow = 64;
constexpr TreePlan kTree = {.k = 256, .query_stride = 1, .key_block = 2};

// Locality: the score of a key is a stationary Gaussian walk whose correlation falls to 1/e over `reach` tokens, times `spread` nats.
std::vector<double> smooth_scores(uint64_t seed, double reach, double spread) {
  auto random = test::random_of(seed, 0, 0);
  const std::vector<float> steps = test::normal_floats(random, kLength);
  const double keep = std::exp(-1 / reach);
  std::vector<double> scores(kLength);
  double x = steps[0];
  for (size_t i = 0; i < scores.size(); ++i) {
    if (i > 0) x = keep * x + std::sqrt(1 - keep * keep) * steps[i];
    scores[i] = spread * x;
  }
  return scores;
}

struct Kept {
  double tree = 0;
  double random = 0;
  double best = 0;  // of all selections of the same size
};

// Shares of the attention mass of [sinks, w0).
Kept kept(const AttentionBodies& body, const std::vector<double>& scores, uint64_t seed) {
  test::AttentionCase c({.type = DType::f32, .heads = 1, .kv_heads = 1, .d = 32, .layers = 1, .layer = 0},
                        {{.length = kLength, .first_row = kLength - 1, .decode = true}}, seed);
  test::Input input = c.input();
  std::fill(input.q.begin(), input.q.end(), 0.0F);
  input.q[0] = std::sqrt(32.0F);  // scaled to 1: a key's score is its first element
  std::vector<float> key(32);
  for (int64_t token = 0; token < kLength; ++token) {
    key[0] = static_cast<float>(scores[static_cast<size_t>(token)]);
    c.set_key(0, token, 0, key);
  }
  const int64_t w0 = window_start(kLength - 1, kLength, kSinks, kWindow, kTree.key_block);
  const auto n = static_cast<size_t>(tree_branches(kTree));
  const uint8_t active = 1;
  std::vector<int32_t> start(n);
  int32_t count = 0;
  int64_t keys = 0;
  const RopeTable rope = c.rope(128, 0);
  auto args = test::args_of<TreeArgs>(c.shape(), input.batch, input.q, rope);
  args.active = &active;
  args.w0 = &w0;
  args.sinks = kSinks;
  args.tree = kTree;
  args.window = kWindow;
  args.trained_context = 4096;
  args.start = start.data();
  args.count = &count;
  args.capacity = static_cast<int64_t>(n);
  args.keys_read = &keys;
  body.tree(args);
  EXPECT_EQ(count, static_cast<int32_t>(n));

  std::vector<double> mass;  // of each key block
  for (int64_t t = kSinks; t < w0; t += kTree.key_block) {
    mass.push_back(std::exp(scores[static_cast<size_t>(t)]) + std::exp(scores[static_cast<size_t>(t + 1)]));
  }
  const double all = std::accumulate(mass.begin(), mass.end(), 0.0);
  Kept k;
  for (const int32_t s : start) k.tree += mass[static_cast<size_t>((s - kSinks) / kTree.key_block)] / all;
  auto random = test::random_of(seed, 1, 0);
  std::shuffle(mass.begin(), mass.end(), random);
  for (size_t i = 0; i < n; ++i) k.random += mass[i] / all;
  std::sort(mass.begin(), mass.end(), std::greater<>());
  for (size_t i = 0; i < n; ++i) k.best += mass[i] / all;
  return k;
}

class HipPromise : public testing::TestWithParam<std::string> {};

// The walk's reach: from a few key blocks to longer than the branches that the search begins with (about 31 tokens).
TEST_P(HipPromise, TreeKeepsMoreThanRandomUnderLocality) {
  const AttentionBodies& body = *pick_attention_bodies(DType::f32, GetParam());
  for (const double reach : {4.0, 16.0, 64.0}) {
    for (const double spread : {0.5, 1.0, 3.0}) {
      constexpr int kSeeds = 40;
      Kept sum;
      double least = 1;
      int worse = 0;
      for (uint64_t seed = 0; seed < kSeeds; ++seed) {
        const Kept k = kept(body, smooth_scores(seed, reach, spread), seed);
        sum.tree += k.tree / kSeeds;
        sum.random += k.random / kSeeds;
        sum.best += k.best / kSeeds;
        least = std::min(least, k.tree - k.random);
        worse += k.tree <= k.random ? 1 : 0;
      }
      const std::string figures = "reach " + std::to_string(reach) + ", spread " + std::to_string(spread) + ": tree " +
                                  std::to_string(sum.tree) + ", random " + std::to_string(sum.random) + ", best " +
                                  std::to_string(sum.best) + ", least margin " + std::to_string(least);
      SCOPED_TRACE(figures);
      RecordProperty("reach_" + std::to_string(static_cast<int>(reach)) + "_spread_" + std::to_string(static_cast<int>(10 * spread)),
                     figures);
      EXPECT_EQ(worse, 0) << "of " << kSeeds << " seeds";
      EXPECT_GE(sum.tree, 1.5 * sum.random);
      EXPECT_LE(sum.tree, sum.best);
    }
  }
}

// Without locality a representative says nothing about its branch: the margin has to come from locality, not from the way it is counted.
TEST_P(HipPromise, LocalityIsWhatHelps) {
  const AttentionBodies& body = *pick_attention_bodies(DType::f32, GetParam());
  double smooth = 0, noise = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Kept s = kept(body, smooth_scores(seed, 64, 1), seed), w = kept(body, smooth_scores(seed, 0.01, 1), seed);
    smooth += (s.tree - s.random) / (s.best - s.random) / 20;
    noise += (w.tree - w.random) / (w.best - w.random) / 20;
  }
  EXPECT_GT(smooth, noise + 0.1) << "share of the way from random to best";
}

std::vector<std::string> f32_bodies() {
  std::vector<std::string> names;
  for (const test::BodyCase& c : test::body_cases()) {
    if (c.type == DType::f32) names.push_back(c.body);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Bodies, HipPromise, testing::ValuesIn(f32_bodies()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bough
