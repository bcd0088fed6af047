// Layers with a sliding window through the layer loop: what they see, whatever the plan; the same bits in every company.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/conversation.h"
#include "support/plans.h"

namespace bough {
namespace {

using test::Conversation;
using test::plan_of;
using test::relative_error;
using test::same_bits;

// Layers that slide by n of which every second one turns by another base; the last layer sees all unless `all` slide.
auto sliding(int64_t n, bool all) {
  return [n, all](ModelConfig& config) {
    RopeConfig local = config.rope;
    local.base = 500.0;
    config.other_ropes = {local};
    config.layer_attention.clear();
    for (int i = 0; i < config.layers; ++i) {
      const bool slides = all || i + 1 < config.layers;
      config.layer_attention.push_back({slides ? n : 0, slides && !all ? 1 : 0});
    }
  };
}

// In a model of one layer a key depends on its token alone, so a window's row equals a dense one that reads nothing but the window.
TEST(SlidingWindow, SeesItsTokensAndNoOthersWhateverThePlan) {
  TinyModel spec = test::peaked_model();
  spec.layers = 1;
  for (const char* plan : {"dense", test::kSmallPlan}) {
    for (const int64_t n : {1, 40, 130}) {
      test::TinyForward forward(spec, plan_of(plan), DType::f32, 11, sliding(n, true));
      test::TinyForward dense(spec, AttentionPlan{}, DType::f32);
      Conversation c(forward, 500);
      for (int step = 0; step < 150; ++step) {
        const std::vector<float> got = step % 10 == 9 ? c.append_one() : c.decode();
        if (step % 7 != 0 && step % 10 != 9) continue;
        const auto sequence = dense.sequence();
        const Slice slice{sequence.get(), std::span(c.tokens()).last(static_cast<size_t>(n)), false, INT64_MAX, 1};
        EXPECT_LE(relative_error(got, dense.step({&slice, 1})), 1e-5) << plan << ", n " << n << ", step " << step;
        EXPECT_LT(c.layer(0).set.size, n + kWindowGrain);
      }
    }
  }
}

// Two layers, two RoPE tables: a sequence decoded token by token equals one that reads the same text at once.
TEST(SlidingWindow, DecodingEqualsReading) {
  for (const DType type : {DType::f32, DType::bf16}) {
    test::TinyForward forward(test::peaked_model(), plan_of("dense"), type, 11, sliding(70, false));
    Conversation c(forward, 190);
    for (int64_t step = 0; step < 200; ++step) {
      const std::vector<float> decoded = c.decode();
      if (step % 40 != 39) continue;
      const auto sequence = forward.sequence();
      const Slice slice{sequence.get(), c.tokens(), false, INT64_MAX, 1};
      EXPECT_LE(relative_error(decoded, forward.step({&slice, 1})), type == DType::f32 ? 1e-5 : 3e-2) << "step " << step;
    }
  }
}

TEST(SlidingWindow, AWindowAsLongAsTheTextChangesNoBit) {
  test::TinyForward forward(test::peaked_model(), plan_of("dense"), DType::bf16, 11, [](ModelConfig& config) {
    config.layer_attention.assign(2, {1000, 0});
  });
  test::TinyForward plain(test::peaked_model(), plan_of("dense"), DType::bf16);
  Conversation a(forward, 300), b(plain, 300);
  for (int step = 0; step < 40; ++step) EXPECT_TRUE(same_bits(a.decode(), b.decode())) << "step " << step;
}

// A softcap and another window change the result: neither is ignored.
TEST(SlidingWindow, EveryFieldOfALayerCounts) {
  std::vector<std::vector<float>> seen;
  const auto add = [&](const std::function<void(ModelConfig&)>& change) {
    test::TinyForward forward(test::peaked_model(), plan_of("dense"), DType::f32, 11, change);
    Conversation c(forward, 300);
    seen.push_back(c.decode());
  };
  add({});
  add(sliding(70, false));
  add(sliding(71, false));
  add(sliding(70, true));
  add([](ModelConfig& config) { config.attention_softcap = 1.0F; });
  add([](ModelConfig& config) { config.rope.magnitude = 1.2; });
  for (size_t i = 0; i < seen.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_GT(relative_error(seen[i], seen[j]), 1e-4) << i << " and " << j;
  }
}

// Slices, threads and a neighbour that is elsewhere in its text.
TEST(SlidingWindow, SameBitsInEveryCompany) {
  const std::vector<TokenId> text = test::tiny_text(700);
  std::vector<std::vector<float>> results;
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{500}, {64, 320, 500}, {448, 500}}) {
    for (const bool neighbour : {false, true}) {
      test::with_threads(neighbour ? 2 : 1, [&] {
        test::TinyForward forward(test::peaked_model(), plan_of(test::kSmallPlan), DType::bf16, 11, sliding(100, false));
        const auto sequence = forward.sequence(), other = forward.sequence();
        for (const int64_t end : cuts) {
          const int64_t at = sequence->length();
          const Slice slice{sequence.get(), std::span(text).subspan(static_cast<size_t>(at), static_cast<size_t>(end - at))};
          forward.step({&slice, 1});
        }
        const Slice first{other.get(), std::span(text).first(133)};
        forward.step({&first, 1});
        std::vector<float> all;
        for (int step = 0; step < 60; ++step) {
          std::vector<Slice> slices;
          const auto token = std::span(text).subspan(static_cast<size_t>(sequence->length()), 1);
          slices.push_back({sequence.get(), token, true, INT64_MAX, 1});
          if (neighbour) slices.push_back({other.get(), token, true, INT64_MAX, 0});
          const std::vector<float> logits = forward.step(slices);
          all.insert(all.end(), logits.begin(), logits.end());
        }
        results.push_back(all);
      });
    }
  }
  for (const auto& result : results) EXPECT_TRUE(same_bits(result, results[0]));
}

// Rolling back into a window's set, then other tokens: as if the first had never been.
TEST(SlidingWindow, RollingBackLeavesNothingBehind) {
  test::TinyForward forward(test::peaked_model(), plan_of("dense"), DType::f32, 11, sliding(100, true));
  const std::vector<TokenId> text = test::tiny_text(700), other = test::tiny_text(700, 9);
  const auto decode = [&](Sequence& sequence, TokenId token) {
    const Slice slice{&sequence, {&token, 1}, true, INT64_MAX, 1};
    return forward.step({&slice, 1});
  };
  for (const int64_t back : {300, 340}) {
    const auto a = forward.sequence(), b = forward.sequence();
    for (Sequence* s : {a.get(), b.get()}) {
      const Slice slice{s, std::span(text).first(300)};
      forward.step({&slice, 1});
    }
    for (size_t i = 300; i < 500; ++i) decode(*a, text[i]);
    a->rollback(back);
    for (auto i = static_cast<size_t>(300); i < static_cast<size_t>(back); ++i) decode(*b, text[i]);
    for (size_t i = 0; i < 30; ++i) EXPECT_TRUE(same_bits(decode(*a, other[i]), decode(*b, other[i]))) << back << ", token " << i;
  }
}

}  // namespace
}  // namespace bough
