// Pruner and the attention state: what each step of decode may see, over hundreds of steps.
#include "attention/prune.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "attention/refresh.h"
#include "support/attention_case.h"
#include "support/conversation.h"

namespace bough {
namespace {

using test::Conversation;
using test::relative_error;
using test::tiny_text;

struct NamedPlan {
  std::string name;
  AttentionPlan plan;
};

AttentionPlan small(const std::string& preset, std::vector<StagePlan> stages, int64_t window, int64_t k) {
  AttentionPlan plan = *parse_plan(preset);
  plan.sinks = 64;
  plan.window = window;
  plan.stages = std::move(stages);
  plan.k = k;
  plan.tail = 8;
  if (plan.first) plan.first = FirstLayers{1, 2 * k, Scan::chunk_indexed};
  return plan;
}

// The presets with their own structure and refresh intervals, an eighth of their size or so.
std::vector<NamedPlan> scaled_presets() {
  std::vector<NamedPlan> plans = {
      {"descent", small("descent", {{32, 0, 64, 4}, {16, 128, 64, 4}, {8, 96, 64, 1}}, 128, 48)},
      {"3k", small("3k", {{64, 0, 64, 4}, {16, 128, 64, 4}, {8, 96, 64, 1}}, 128, 48)},
      {"3k_fast", small("3k-fast", {{64, 0, 64, 4}, {16, 128, 64, 4}, {8, 96, 64, 1}}, 128, 48)},
      {"3k_flash", small("3k-flash", {{64, 0, 64, 4}, {16, 192, 64, 4}, {8, 96, 64, 1}}, 160, 48)},
      {"default", small("default", {{32, 0, 64, 16, 0, 8}, {16, 128, 64, 4, 1, 0, 8}, {8, 96, 64, 1, 1, 0, 1}}, 128, 48)},
      {"every_key", small("default", {{32, 0, 64, 16, 0, 8}, {16, 128, 64, 4, 1}, {8, 96, 64, 4, 0, 1}}, 128, 48)},
      {"5k", small("5k", {{64, 0, 64, 4}, {32, 192, 64, 4}, {16, 128, 64, 1}}, 128, 64)},
  };
  for (size_t i = 0, n = plans.size(); i < n; ++i) {
    plans.push_back(plans[i]);
    plans.back().name += "_per_head";
    plans.back().plan.lists = Lists::kv_head;
  }
  return plans;
}

void PrintTo(const NamedPlan& p, std::ostream* out) { *out << p.name; }

class Pruning : public testing::TestWithParam<NamedPlan> {
 protected:
  const AttentionPlan& plan() const { return GetParam().plan; }
  int chunk() const { return plan().stages.back().chunk; }
};

TEST_P(Pruning, PlansAreValid) {
  const Status status = validate_plan(plan());
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_LE(plan().context_tokens(), 1024);
}

// Marks [start, start + chunk) of every chunk of one list.
void mark(std::span<const int32_t> starts, int chunk, std::vector<bool>& seen) {
  for (const int32_t start : starts) {
    for (int i = 0; i < chunk && static_cast<size_t>(start + i) < seen.size(); ++i) seen[static_cast<size_t>(start + i)] = true;
  }
}

// The tokens that one list head's current lists came from: those offered to each stage when it last ran.
class Offered {
 public:
  explicit Offered(const AttentionPlan* plan) : plan_(plan), seen_(plan->stages.size()) {}

  // After a decode step whose first refreshed stage was `first`.
  void note(const LayerState& layer, int head, int first, int64_t length) {
    for (size_t stage = static_cast<size_t>(first); stage < seen_.size(); ++stage) {
      seen_[stage].assign(static_cast<size_t>(length), false);
      if (stage == 0) {
        for (int64_t t = plan_->sinks; t < std::min(layer.grid_end, length); ++t) seen_[0][static_cast<size_t>(t)] = true;
        continue;
      }
      const StageInput& input = layer.inputs[stage - 1];
      const auto starts = std::span(input.start).subspan(static_cast<size_t>(head * input.count), static_cast<size_t>(input.count));
      EXPECT_TRUE(std::is_sorted(starts.begin(), starts.end(), std::less_equal<>())) << "stage " << stage << ": not strictly ascending";
      mark(starts, plan_->stages[stage].chunk, seen_[stage]);
    }
  }
  bool holds(int64_t token) const {
    return std::any_of(seen_.begin(), seen_.end(),
                       [&](const std::vector<bool>& s) { return static_cast<size_t>(token) < s.size() && s[static_cast<size_t>(token)]; });
  }

 private:
  const AttentionPlan* plan_;
  std::vector<std::vector<bool>> seen_;  // [stage][token]
};

// Every token is a sink, was a candidate of a stage that the current lists came from, or is in the window.
TEST_P(Pruning, NoTokenIsEverOutOfSight) {
  test::TinyForward forward(test::peaked_model(), plan(), DType::f32);
  const int list_heads = forward.setup().list_heads();
  Conversation c(forward, 517);
  std::vector<std::vector<Offered>> offered(2, std::vector<Offered>(static_cast<size_t>(list_heads), Offered(&plan())));
  for (int64_t step = 0; step < 250; ++step) {
    const int first = first_refreshed_stage(plan().refresh, c.state().counter);
    c.decode();
    for (int l = 0; l < 2; ++l) {
      const LayerState& layer = c.layer(l);
      for (int h = 0; h < list_heads; ++h) {
        Offered& seen = offered[static_cast<size_t>(l)][static_cast<size_t>(h)];
        seen.note(layer, h, first, c.length());
        for (int64_t token = plan().sinks; token < layer.w0; ++token) {
          ASSERT_TRUE(seen.holds(token)) << "step " << step << ", layer " << l << ", head " << h << ": token " << token << " of "
                                         << c.length();
        }
      }
      ASSERT_LE(layer.w0, c.length() - plan().window + chunk() + plan().refresh.back()) << "the window slides";
    }
  }
}

// What is selected is whole chunks before the window, in order, each offered to the last stage, no more than k.
TEST_P(Pruning, SelectionIsWellFormed) {
  test::TinyForward forward(test::peaked_model(), plan(), DType::f32);
  const int list_heads = forward.setup().list_heads();
  Conversation c(forward, 640);
  for (int64_t step = 0; step < 60; ++step) {
    c.decode();
    for (int l = 0; l < 2; ++l) {
      const LayerState& layer = c.layer(l);
      const StageInput& input = layer.inputs.back();
      ASSERT_EQ(layer.selected.size(), static_cast<size_t>(list_heads * layer.selected_count));
      ASSERT_LE(int64_t{layer.selected_count} * chunk(), plan().layer(l).k);
      ASSERT_GT(layer.selected_count, 0);
      for (int h = 0; h < list_heads; ++h) {
        const auto starts =
            std::span(layer.selected).subspan(static_cast<size_t>(h * layer.selected_count), static_cast<size_t>(layer.selected_count));
        const auto from = std::span(input.start).subspan(static_cast<size_t>(h * input.count), static_cast<size_t>(input.count));
        ASSERT_TRUE(std::is_sorted(starts.begin(), starts.end(), std::less_equal<>()));
        ASSERT_GE(starts.front(), plan().sinks);
        ASSERT_LT(starts.back(), layer.w0);
        ASSERT_EQ(layer.w0 % chunk(), 0);
        for (const int32_t start : starts) ASSERT_TRUE(std::binary_search(from.begin(), from.end(), start)) << "step " << step;
      }
    }
  }
}

// Between refreshes the context is frozen and each new token is appended to it.
TEST_P(Pruning, ContextIsFrozenBetweenRefreshes) {
  test::TinyForward forward(test::peaked_model(), plan(), DType::f32);
  Conversation c(forward, 640);
  const auto none = static_cast<int>(plan().refresh.size());
  int64_t renewed = 0;
  for (int64_t step = 0; step < 100; ++step) {
    const int first = first_refreshed_stage(plan().refresh, c.state().counter);
    std::vector<std::vector<int32_t>> selected;
    std::vector<int64_t> w0, size;
    for (int l = 0; l < 2; ++l) {
      selected.push_back(c.layer(l).selected);
      w0.push_back(c.layer(l).w0);
      size.push_back(c.layer(l).set.size);
    }
    c.decode();
    for (int l = 0; l < 2; ++l) {
      const LayerState& layer = c.layer(l);
      const int64_t context = plan().sinks + int64_t{layer.selected_count} * chunk() + c.length() - layer.w0;
      ASSERT_EQ(layer.set.size, context);
      ASSERT_LE(layer.set.size, plan().context_tokens());
      if (first < none) {
        renewed += 1;
        ASSERT_EQ(layer.w0, window_start(c.length() - 1, c.length(), plan().sinks, plan().window, chunk()));
        continue;
      }
      ASSERT_EQ(layer.selected, selected[static_cast<size_t>(l)]);
      ASSERT_EQ(layer.w0, w0[static_cast<size_t>(l)]);
      ASSERT_EQ(layer.set.size, size[static_cast<size_t>(l)] + 1);
    }
  }
  EXPECT_EQ(renewed, 2 * ((100 + plan().refresh.back() - 1) / plan().refresh.back()));
}

INSTANTIATE_TEST_SUITE_P(Presets, Pruning, testing::ValuesIn(scaled_presets()), [](const auto& info) { return info.param.name; });

// The logits of the last of `tokens`, read densely by a fresh sequence.
std::vector<float> dense_logits(const TinyModel& spec, const std::vector<TokenId>& tokens) {
  test::TinyForward dense(spec, AttentionPlan{}, DType::f32);
  const auto sequence = dense.sequence();
  const Slice slice{sequence.get(), tokens, false, INT64_MAX, 1};
  return dense.step({&slice, 1});
}

// In a model of one layer a key depends on its token alone, so a pruned step equals a dense one that reads nothing but the context.
TEST(Context, DecodeAttendsExactlyItsContext) {
  TinyModel spec = test::peaked_model();
  spec.layers = 1;
  for (const char* name : {"default", "3k-flash"}) {
    const AttentionPlan plan = small(name, {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 48);
    AttentionPlan two = plan;
    two.first.reset();
    two.refresh = {6, 3};
    test::TinyForward forward(spec, two, DType::f32);
    Conversation c(forward, 500);
    for (int step = 0; step < 20; ++step) {
      const std::vector<float> logits = c.decode();
      const LayerState& layer = c.layer(0);
      const Context context{two.sinks, layer.selected.data(), int64_t{layer.selected_count} * 8, 8, layer.w0, c.length()};
      std::vector<TokenId> tokens;
      for (int64_t rank = 0; rank < context.size(); ++rank) tokens.push_back(c.tokens()[static_cast<size_t>(context.token(rank))]);
      EXPECT_LE(relative_error(logits, dense_logits(spec, tokens)), 1e-5) << name << ", step " << step;
    }
  }
}

TEST(Context, StreamingAttendsSinksAndWindowOnly) {
  TinyModel spec = test::peaked_model();
  spec.layers = 1;
  AttentionPlan plan = *parse_plan("streaming");
  plan.sinks = 64;
  plan.window = 128;
  plan.refresh = {4};
  ASSERT_TRUE(validate_plan(plan).ok());
  test::TinyForward forward(spec, plan, DType::f32);
  const auto read = [&](const Conversation& c, int64_t w0) {
    std::vector<TokenId> tokens(c.tokens().begin(), c.tokens().begin() + plan.sinks);
    tokens.insert(tokens.end(), c.tokens().begin() + w0, c.tokens().end());
    return dense_logits(spec, tokens);
  };
  Conversation c(forward, 500);
  int64_t w0 = 0;
  for (int64_t step = 0; step < 12; ++step) {
    const std::vector<float> logits = c.decode();
    if (step % 4 == 0) w0 = (c.length() - plan.window) / 8 * 8;
    EXPECT_LE(relative_error(logits, read(c, w0)), 1e-5) << "step " << step;
    EXPECT_EQ(c.layer(0).set.size, plan.sinks + c.length() - w0);
  }
  const std::vector<float> logits = c.append_one();
  EXPECT_LE(relative_error(logits, read(c, (c.length() - plan.window) / 8 * 8)), 1e-5);
}

// Every stage at every step: the same as no cache at all, which is how one-row appends before sampling are read.
TEST(Context, RefreshingAlwaysEqualsNoCaching) {
  for (const bool per_head : {false, true}) {
    AttentionPlan plan = small("descent", {{32, 0, 64, 4}, {16, 128, 64, 4}, {8, 96, 64, 1}}, 128, 48);
    plan.refresh = {1, 1, 1};
    plan.lists = per_head ? Lists::kv_head : Lists::layer;
    test::TinyForward cached(test::peaked_model(), plan, DType::f32), plain(test::peaked_model(), plan, DType::f32);
    Conversation a(cached, 600), b(plain, 600);
    for (int step = 0; step < 40; ++step) EXPECT_LE(relative_error(a.decode(), b.append_one()), 1e-5) << "step " << step;
  }
}

// From all tokens to a pruned context in mid-answer: at the first refresh after the text outgrew sinks + window + k.
TEST(Context, OutgrowsTheDenseLimitAtARefresh) {
  AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 64);
  plan.refresh = {8, 4};
  test::TinyForward forward(test::peaked_model(), plan, DType::f32);
  Conversation c(forward, 250);
  for (int64_t step = 0; step < 30; ++step) {
    c.decode();
    const LayerState& layer = c.layer(1);
    const bool pruned = step >= 8;  // 256 is outgrown at step 6, the next refresh is two steps later
    EXPECT_EQ(layer.holds, pruned ? LayerState::Holds::pruned : LayerState::Holds::run) << c.length();
    if (!pruned) {
      EXPECT_EQ(layer.set.size, c.length());
    }
    EXPECT_LE(layer.set.size, plan.context_tokens());
  }
}

// The same for dense_below, with intervals so long that the dense set grows well past it.
TEST(Context, OutgrowsDenseBelowAtARefresh) {
  AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 160, 64);
  plan.refresh = {128, 64};
  plan.dense_below = 600;
  ASSERT_TRUE(validate_plan(plan).ok());
  test::TinyForward forward(test::peaked_model(), plan, DType::f32), all(test::peaked_model(), AttentionPlan{}, DType::f32);
  Conversation c(forward, 590), dense(all, 590);
  for (int64_t step = 0; step < 66; ++step) {
    const std::vector<float> logits = c.decode(), expected = dense.decode();
    EXPECT_EQ(test::same_bits(logits, expected), step < 64) << "step " << step;
    EXPECT_EQ(c.layer(0).holds, step < 64 ? LayerState::Holds::run : LayerState::Holds::pruned);
  }
}

// Lists of prefill: a pruner by itself over random queries and pages.
class PrefillLists : public testing::Test {
 protected:
  void run(const AttentionPlan& plan, std::vector<test::SequenceSpec> specs,
           const std::function<void(const Batch&, const BlockList&, Pruner&)>& check) {
    const test::AttentionCase random(shape_, std::move(specs), 3);
    test::Input input = random.input();
    const AttentionSetup setup(plan, shape_.kv(), shape_.head_shape(), 1024, pick_attention_bodies(shape_.type));
    const RopeTable rope = random.rope(setup.rope_positions(0, 4096));
    std::vector<AttentionState> states(static_cast<size_t>(input.batch.decode_rows));
    std::vector<AttentionState*> pointers;
    for (AttentionState& state : states) {
      state.layers.resize(static_cast<size_t>(shape_.layers));
      pointers.push_back(&state);
    }
    Pruner pruner(&setup);
    const BlockList lists = pruner.run(input.batch, shape_.layer, input.q.data(), rope, pointers);
    check(input.batch, lists, pruner);
  }

  test::CaseShape shape_;
};

TEST_F(PrefillLists, ShortTextsRunNoStage) {
  const AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 64);
  run(plan, {{.length = 256, .first_row = 0}, {.length = 100, .first_row = 90}},
      [](const Batch& batch, const BlockList& lists, Pruner& pruner) {
        for (size_t b = 0; b < batch.blocks.size(); ++b) {
          EXPECT_EQ(lists.w0[b], 0);
          EXPECT_EQ(lists.count[b], 0);
        }
        EXPECT_EQ(pruner.chunks_scored(), 0);
      });
}

TEST_F(PrefillLists, CandidatesThatFitAreNotScored) {
  AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 512, 64, 1}}, 128, 256);
  run(plan, {{.length = 449, .first_row = 448}}, [](const Batch& batch, const BlockList& lists, Pruner& pruner) {
    ASSERT_EQ(batch.blocks.size(), 1u);
    EXPECT_EQ(lists.w0[0], 320);
    EXPECT_EQ(lists.count[0], (320 - 64) / 8);
    EXPECT_EQ(pruner.chunks_scored(), 0);
  });
}

TEST_F(PrefillLists, WorkIsCounted) {
  AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 64);
  run(plan, {{.length = 1025, .first_row = 1024}}, [&](const Batch&, const BlockList& lists, Pruner& pruner) {
    EXPECT_EQ(lists.w0[0], 896);
    EXPECT_EQ(lists.count[0], 64 / 8);
    EXPECT_EQ(pruner.chunks_scored(), shape_.kv_heads * ((896 - 64) / 32 + 96 / 8)) << "all chunks of stage 0, those kept of stage 1";
  });
}

TEST_F(PrefillLists, EachStageKeepsPartOfTheOneBefore) {
  AttentionPlan plan = small("5k", {{64, 0, 64, 4}, {32, 256, 64, 2}, {8, 96, 64, 1}}, 128, 64);
  run(plan, {{.length = 1025, .first_row = 1024}}, [&](const Batch&, const BlockList& lists, Pruner& pruner) {
    const std::span<const BlockList> stages = pruner.stage_lists();
    ASSERT_EQ(stages.size(), 3u);
    const int counts[] = {256 / 64, 96 / 32, 64 / 8};
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(stages[i].chunk, plan.stages[i].chunk);
      EXPECT_EQ(stages[i].sinks, 64);
      ASSERT_EQ(stages[i].count[0], counts[i]) << "stage " << i;
      for (int j = 0; i > 0 && j < counts[i]; ++j) {
        const int32_t start = stages[i].list(0, 0)[j];
        const std::span parents(stages[i - 1].list(0, 0), static_cast<size_t>(counts[i - 1]));
        EXPECT_TRUE(std::any_of(parents.begin(), parents.end(), [&](int32_t p) { return p <= start && start < p + stages[i - 1].chunk; }))
            << "stage " << i << ", chunk at " << start;
      }
    }
    EXPECT_EQ(stages[2].list(0, 0), lists.list(0, 0));
  });
  run(small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 64), {{.length = 100, .first_row = 90}},
      [](const Batch&, const BlockList&, Pruner& pruner) {
        for (const BlockList& stage : pruner.stage_lists()) EXPECT_EQ(stage.count[0], 0) << "everything is seen, no stage runs";
      });
}

TEST_F(PrefillLists, DenseBelowIsPerBlock) {
  AttentionPlan plan = small("5k", {{32, 0, 64, 4}, {8, 96, 64, 1}}, 128, 64);
  plan.dense_below = 513;
  run(plan, {{.length = 640, .first_row = 384}}, [](const Batch& batch, const BlockList& lists, Pruner&) {
    ASSERT_EQ(batch.blocks.size(), 4u);
    EXPECT_EQ(lists.w0[0], 0);
    EXPECT_EQ(lists.w0[1], 0) << "ends at 512";
    EXPECT_EQ(lists.w0[2], 384) << "512 + 1 - 128, rounded down to 8";
    EXPECT_EQ(lists.count[1], 0);
    EXPECT_EQ(lists.count[2], 8);
  });
}

}  // namespace
}  // namespace bough
