// What must not change a bit: pruning while everything fits, slice cuts, threads, neighbours in a batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::logits_of;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;

class SameBits : public testing::TestWithParam<DType> {};

// Logits of the last `rows` rows after reading `text` in pieces that end at `cuts` and at the end, then of each decoded token.
std::vector<float> run(Engine& engine, const std::vector<TokenId>& text, const std::vector<int64_t>& cuts, const AppendOptions& last,
                       const std::vector<TokenId>& decoded) {
  const auto session = session_of(engine);
  int64_t at = 0;
  for (const int64_t cut : cuts) {
    EXPECT_TRUE(session->append(std::span(text).subspan(static_cast<size_t>(at), static_cast<size_t>(cut - at))).ok());
    at = cut;
  }
  EXPECT_TRUE(session->append(std::span(text).subspan(static_cast<size_t>(at)), last).ok());
  std::vector<float> all = logits_of(*session);
  for (const TokenId token : decoded) {
    EXPECT_TRUE(session->decode(token).ok());
    const std::vector<float> row = logits_of(*session);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

// Sinks 64, window 128, k 64: up to 256 tokens the pruned plan sees what the dense one does.
TEST_P(SameBits, PrunedEqualsDenseWhileEverythingFits) {
  const TinyFile file(test::peaked_model());
  const auto stages = file.engine(test::kSmallPlan, GetParam()), tree = file.engine(test::kSmallTree, GetParam());
  const auto dense = file.engine("dense", GetParam());
  ASSERT_TRUE(stages != nullptr && tree != nullptr && dense != nullptr);
  for (const int64_t read : {1, 63, 64, 65, 130, 216}) {
    const std::vector<TokenId> text = tiny_text(read), decoded = tiny_text(40, 6);
    const AppendOptions options{.will_sample = true, .logits = read};
    const std::vector<float> all = run(*dense, text, {}, options, decoded);
    EXPECT_TRUE(same_bits(run(*stages, text, {}, options, decoded), all)) << read << " tokens";
    EXPECT_TRUE(same_bits(run(*tree, text, {}, options, decoded), all)) << read << " tokens, tree";
  }
}

// One token more than fits, and the two part: the test above does not hold by accident.
TEST_P(SameBits, PrunedDiffersFromDenseAfterwards) {
  const TinyFile file(test::peaked_model());
  const auto dense = file.engine("dense", GetParam());
  ASSERT_NE(dense, nullptr);
  for (const char* plan : {test::kSmallPlan, test::kSmallTree}) {
    const auto pruned = file.engine(plan, GetParam());
    ASSERT_NE(pruned, nullptr);
    const AppendOptions options{.will_sample = true};
    EXPECT_FALSE(same_bits(run(*pruned, tiny_text(700), {}, options, {}), run(*dense, tiny_text(700), {}, options, {}))) << plan;
  }
}

TEST_P(SameBits, SlicesDoNotMatter) {
  const TinyFile file(test::peaked_model());
  const std::vector<TokenId> text = tiny_text(900), decoded = tiny_text(7, 6);
  for (const char* plan : {test::kSmallPlan, test::kSmallPieces, test::kSmallTree, "dense"}) {
    const auto engine = file.engine(plan, GetParam(), 2);
    ASSERT_NE(engine, nullptr);
    const std::vector<float> whole = run(*engine, text, {}, {.logits = 60}, decoded);
    const std::vector<std::vector<int64_t>> cuttings = {{64}, {448, 832}, {128, 192, 256, 640}};
    for (const auto& cuts : cuttings) {
      EXPECT_TRUE(same_bits(run(*engine, text, cuts, {.logits = 60}, decoded), whole)) << plan << ", " << cuts.size() << " cuts";
    }
  }
}

// A text of more than one of the engine's own slices.
TEST_P(SameBits, TheEnginesOwnSlices) {
  const TinyFile file(test::peaked_model());
  const auto engine = file.engine(test::kSmallPlan, GetParam(), 2);
  ASSERT_NE(engine, nullptr);
  const std::vector<TokenId> text = tiny_text(4400);
  const AppendOptions options{.will_sample = true, .logits = 310};
  const std::vector<float> whole = run(*engine, text, {}, options, {});
  EXPECT_EQ(whole.size(), static_cast<size_t>(310 * tiny_vocab_size()));
  EXPECT_TRUE(same_bits(run(*engine, text, {1024, 2048, 4032}, options, {}), whole));
}

TEST_P(SameBits, ThreadsDoNotMatter) {
  const TinyFile file(test::peaked_model());
  const std::vector<TokenId> text = tiny_text(700), decoded = tiny_text(9, 6);
  const AppendOptions options{.will_sample = true, .logits = 700};
  for (const char* plan : {test::kSmallPlan, test::kSmallTree}) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
      const auto engine = file.engine(plan, GetParam(), threads);
      ASSERT_NE(engine, nullptr);
      results.push_back(run(*engine, text, {}, options, decoded));
    }
    EXPECT_TRUE(same_bits(results[1], results[0])) << plan;
    EXPECT_TRUE(same_bits(results[2], results[0])) << plan;
  }
}

// What one sequence does at one step: reads or decodes, or nothing.
struct Move {
  int64_t tokens = 0;
  bool decode = false;
  int64_t tail = 0;
};
using Script = std::vector<Move>;

// Prefill in slices, decode rows with different counters, an append in between, a late start.
std::vector<Script> scripts() {
  const Move decode{1, true}, rest{};
  Script first = {{300, false, 64}}, second = {{256}, {261, false, 20}}, third = {rest, rest, rest, {129}, rest};
  for (int i = 0; i < 12; ++i) {
    first.push_back(decode);
    second.push_back(decode);
    third.push_back(decode);
  }
  second[9] = {100, false, 64};
  third.back() = {65, false, 65};
  return {first, second, third};
}

// Plays the scripts of `which` side by side; the logits that each of them saw, of the last 3 rows of a slice at most.
std::vector<std::vector<float>> play(test::TinyForward& forward, const std::vector<Script>& all, const std::vector<size_t>& which) {
  const auto vocab = static_cast<size_t>(tiny_vocab_size());
  std::vector<std::vector<float>> seen(all.size());
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (size_t i = 0; i < all.size(); ++i) sequences.push_back(forward.sequence());
  size_t steps = 0;
  for (const Script& script : all) steps = std::max(steps, script.size());
  std::vector<std::vector<TokenId>> texts;
  for (size_t i = 0; i < all.size(); ++i) texts.push_back(tiny_text(2000, 20 + i));
  for (size_t step = 0; step < steps; ++step) {
    std::vector<Slice> slices;
    std::vector<size_t> owners;
    for (const bool decoding : {true, false}) {  // the order of a batch's logits
      for (const size_t i : which) {
        const Move move = step < all[i].size() ? all[i][step] : Move{};
        if (move.tokens == 0 || move.decode != decoding) continue;
        const int64_t at = sequences[i]->length();
        const auto tokens = std::span<const TokenId>(texts[i]).subspan(static_cast<size_t>(at), static_cast<size_t>(move.tokens));
        const int64_t tail_from = move.tail == 0 ? INT64_MAX : at + move.tokens - std::min(move.tail, move.tokens);
        slices.push_back({sequences[i].get(), tokens, move.decode, tail_from, std::min<int64_t>(3, move.tokens)});
        owners.push_back(i);
      }
    }
    if (slices.empty()) continue;
    const std::vector<float> logits = forward.step(slices);
    const float* at = logits.data();
    for (size_t s = 0; s < slices.size(); ++s) {
      const size_t count = static_cast<size_t>(slices[s].logits) * vocab;
      seen[owners[s]].insert(seen[owners[s]].end(), at, at + count);
      at += count;
    }
    EXPECT_EQ(at, logits.data() + logits.size());
  }
  return seen;
}

TEST_P(SameBits, AloneEqualsInABatch) {
  std::vector<std::string> plans = {test::kSmallPlan, test::kSmallPieces, test::kSmallTree, "dense",
                                    R"({"mode":"streaming","sinks":64,"window":128,"refresh":[3],"tail":8})"};
  std::string per_head = test::kSmallPlan;
  plans.push_back(per_head.replace(per_head.find("\"tail\""), 0, "\"lists\":\"kv_head\","));
  for (const std::string& text : plans) {
    const Result<AttentionPlan> plan = parse_plan(text);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    test::TinyForward forward(test::peaked_model(), *plan, GetParam());
    const std::vector<Script> all = scripts();
    const std::vector<std::vector<float>> together = play(forward, all, {0, 1, 2});
    const std::vector<std::vector<float>> reversed = play(forward, all, {2, 1, 0});
    for (const size_t i : {0, 1, 2}) {
      const std::vector<float> alone = play(forward, all, {i})[i];
      EXPECT_FALSE(alone.empty());
      EXPECT_TRUE(same_bits(together[i], alone)) << text << ", sequence " << i;
      EXPECT_TRUE(same_bits(reversed[i], alone)) << text << ", sequence " << i << " in another order";
    }
    EXPECT_EQ(forward.pool().pages_in_use(), 0);
  }
}

// Biases, head norms, post norms, sliding windows and several RoPE tables keep the rules too.
TEST_P(SameBits, EveryFamily) {
  const std::vector<TokenId> text = tiny_text(500), decoded = tiny_text(5, 6);
  for (const char* arch : {"qwen2", "qwen3", "gemma2", "gemma3", "phi3"}) {
    TinyModel spec = test::peaked_model();
    spec.arch = arch;
    if (spec.arch.starts_with("gemma")) {
      spec.sliding_window = 100;
      spec.sliding_period = 2;
    }
    const TinyFile file(spec);
    const auto alone = file.engine(test::kSmallPlan, GetParam(), 1), many = file.engine(test::kSmallPlan, GetParam(), 3);
    ASSERT_TRUE(alone != nullptr && many != nullptr);
    const AppendOptions options{.will_sample = true, .logits = 60};
    const std::vector<float> whole = run(*alone, text, {}, options, decoded);
    EXPECT_TRUE(same_bits(run(*many, text, {64, 384}, options, decoded), whole)) << arch;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SameBits, testing::ValuesIn(kAllDTypes), [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace bough
