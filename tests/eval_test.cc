// Quality tasks: haystacks, trials, figures of a tiny random model.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "eval/corpus.h"
#include "eval/logits_error.h"
#include "eval/passkey.h"
#include "eval/ppl.h"
#include "eval/score.h"
#include "eval/trials.h"
#include "support/tiny_gguf.h"

namespace bough::eval {
namespace {

TEST(Trials, SourceRankIsOfTheFirstPassageThatIsTheNeedle) {
  Prompt prompt;
  prompt.needle = 100;
  prompt.needle_tokens = 20;
  const auto rank = [&](const std::vector<Source>& sources) { return source_rank(sources, prompt); };
  EXPECT_EQ(rank({}), 0);
  EXPECT_EQ(rank({{0, 32, 0.5}, {88, 20, 0.2}, {96, 64, 0.1}}), 3) << "8 of 20 tokens are not half; the whole needle is";
  EXPECT_EQ(rank({{104, 8, 0.5}}), 1);
  EXPECT_EQ(rank({{116, 8, 0.5}}), 1);
  EXPECT_EQ(rank({{117, 8, 0.5}, {120, 8, 0.5}}), 0);
}

TEST(Trials, SharedPrefixIsWholePages) {
  std::vector<TokenId> a(300);
  std::iota(a.begin(), a.end(), 0);
  std::vector<TokenId> b = a;
  EXPECT_EQ(shared_prefix(a, b), 256);
  b[200] = -1;
  EXPECT_EQ(shared_prefix(a, b), 192);
  b[192] = -1;
  EXPECT_EQ(shared_prefix(a, b), 192);
  b[191] = -1;
  EXPECT_EQ(shared_prefix(a, b), 128);
  EXPECT_EQ(shared_prefix(a, {}), 0);
}

TEST(Score, NegativeLogProbabilityAndFirstChoice) {
  const std::vector<float> logits = {0.0F, std::log(2.0F), 0.0F, std::log(2.0F)};
  const auto best = score_token(logits, 1);
  ASSERT_TRUE(best.ok());
  EXPECT_TRUE(best->first_choice);
  EXPECT_NEAR(best->nll, std::log(3.0), 1e-6);
  const auto tie = score_token(logits, 3);
  ASSERT_TRUE(tie.ok());
  EXPECT_FALSE(tie->first_choice) << "of equal logits the lower id is first";
  EXPECT_NEAR(score_token(logits, 0)->nll, std::log(6.0), 1e-6);
  EXPECT_FALSE(score_token(logits, 4).ok());
  EXPECT_FALSE(score_token(logits, -1).ok());
  EXPECT_FALSE(score_token({}, 0).ok());
}

TEST(Trials, StringsAreFoundInEitherCase) {
  const std::vector<std::string> expected = {"Quiet-Harbor", "1234567", "abc"};
  EXPECT_EQ(strings_found("", expected), 0);
  EXPECT_EQ(strings_found("the quiet-harbor, 1234567.", expected), 2);
  EXPECT_EQ(strings_found("xABCx 123456 quiet harbor", expected), 1);
}

TEST(Logits, ErrorsOfARow) {
  const std::vector<float> reference = {0.0F, std::log(3.0F)};
  const auto same = compare_row(reference, reference);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->relative, 0);
  EXPECT_EQ(same->divergence, 0);
  EXPECT_TRUE(same->same_choice);
  const std::vector<float> other = {1.0F, 1.0F};  // one half each, beside one and three quarters
  const auto error = compare_row(reference, other);
  ASSERT_TRUE(error.ok());
  EXPECT_NEAR(error->relative, std::sqrt(1 + std::pow(std::log(3.0) - 1, 2)) / std::log(3.0), 1e-6);
  EXPECT_NEAR(error->divergence, 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6);
  EXPECT_FALSE(error->same_choice) << "of equal logits the lower id is first";
  EXPECT_FALSE(compare_row(reference, std::span(other).first(1)).ok());
  EXPECT_FALSE(compare_row({}, {}).ok());
  const std::vector<float> nothing = {0.0F, 0.0F};
  EXPECT_FALSE(compare_row(nothing, other).ok()) << "an error relative to nothing is not finite";
}

TEST(Logits, ACellAveragesRowsAndTexts) {
  const FinalLogits reference{.values = {0, 1, 0, 1, 0, 1, 0, 1}};
  const FinalLogits mine{.values = {0, 1, 0, 1, 0, 1, 1, 0}, .seconds = 2};
  const auto cell = logits_cell(reference, mine, 2, {.length = 100, .trials = 2, .rows = 2});
  ASSERT_TRUE(cell.ok()) << cell.status().message();
  EXPECT_EQ(cell->score, 0.75);
  EXPECT_EQ(cell->exact, 0.5);
  EXPECT_NEAR(*cell->relative_error, std::sqrt(2.0) / 4, 1e-12);
  EXPECT_GT(*cell->divergence, 0);
  EXPECT_EQ(cell->tokens, 200);
  EXPECT_FALSE(logits_cell(reference, mine, 2, {.length = 100, .trials = 2, .rows = 3}).ok());
}

// What the tasks measure on a tiny random model under a plan that prunes at its lengths.
class TinyTasks : public ::testing::Test {
 protected:
  TinyTasks() {
    const std::string path = ::testing::TempDir() + "bough_eval_" + std::to_string(getpid()) + ".gguf";
    const Status written = write_tiny_gguf(path, {}, 11);
    EXPECT_TRUE(written.ok()) << written.message();
    Result<std::unique_ptr<Engine>> opened = Engine::open({.model = path, .plan = small_plan, .prefix_bytes = 0});
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    if (opened.ok()) engine_ = std::move(*opened);
    std::filesystem::remove(path);
  }

  static constexpr const char* small_plan =
      R"({"mode":"stages","sinks":64,"window":128,"stages":[{"chunk":64,"query_block":64,"query_stride":4},)"
      R"({"chunk":8,"keep":256,"query_block":64,"query_stride":1}],"k":128,"first":null,"refresh":[4,2],"tail":64})";
  std::unique_ptr<Engine> engine_;
};

TEST_F(TinyTasks, SharedPrefixesChangeNothing) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  ASSERT_TRUE(filler.ok());
  const auto prompts = passkey_prompts(*engine_, *filler, {.length = 1200, .trials = 4, .seed = 3});
  ASSERT_TRUE(prompts.ok()) << prompts.status().message();
  for (const Prompt& prompt : *prompts) EXPECT_EQ(prompt.text.size() + prompt.question.size(), 1200u);
  const auto results = [&](bool share, Cell& cell) {
    std::vector<TrialResult> all;
    auto runner = TrialRunner::create(*engine_);
    EXPECT_TRUE(runner.ok());
    const auto ran = runner->run(*prompts, {.share_prefixes = share, .on_result = [&](const TrialResult& r) { all.push_back(r); }});
    EXPECT_TRUE(ran.ok()) << ran.status().message();
    cell = *ran;
    return all;
  };
  Cell cell;
  Cell fresh_cell;
  const std::vector<TrialResult> shared = results(true, cell);
  const std::vector<TrialResult> fresh = results(false, fresh_cell);
  ASSERT_EQ(shared.size(), 4u);
  ASSERT_EQ(fresh.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(shared[i].trial, 3 - static_cast<int>(i)) << "from the deepest needle on";
    EXPECT_EQ(shared[i].nll, fresh[i].nll) << "trial " << shared[i].trial;
    EXPECT_EQ(shared[i].right, fresh[i].right);
  }
  EXPECT_LT(cell.tokens, fresh_cell.tokens);
  EXPECT_EQ(cell.cross_entropy, fresh_cell.cross_entropy);
  EXPECT_EQ(cell.trials, 4);
}

// What a question and an answer left in the cache is no part of the next prompt, even where its text begins with the same tokens.
TEST_F(TinyTasks, AQuestionIsNeverTakenForText) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  Prompt first;
  first.text = *filler->piece(0, 640);
  first.question = *filler->piece(640, 64);
  first.answer = *filler->piece(704, 2);
  Prompt second;
  second.text = *filler->piece(0, 704);
  second.question = *filler->piece(704, 64);
  second.answer = *filler->piece(768, 2);
  auto after = TrialRunner::create(*engine_);
  auto fresh = TrialRunner::create(*engine_);
  ASSERT_TRUE(after.ok() && fresh.ok());
  ASSERT_TRUE(after->run({&first, 1}, {}).ok());
  const auto cell = after->run({&second, 1}, {});
  const auto fresh_cell = fresh->run({&second, 1}, {});
  ASSERT_TRUE(cell.ok() && fresh_cell.ok());
  EXPECT_EQ(cell->tokens, 64 + 64 + 1) << "640 tokens of text are shared";
  EXPECT_EQ(cell->cross_entropy, fresh_cell->cross_entropy);
}

TEST_F(TinyTasks, GreedyAnswersEndWhenEverythingIsFound) {
  ASSERT_NE(engine_, nullptr);
  Prompt prompt;
  prompt.text = *engine_->tokenize("The sky is blue.");
  prompt.question = *engine_->tokenize(" The grass is", false);
  prompt.expected = {"\n\n never said \n\n"};
  prompt.answer_room = 24;
  auto runner = TrialRunner::create(*engine_);
  ASSERT_TRUE(runner.ok());
  std::string answer;
  const auto keep = [&](const TrialResult& result) { answer = result.answer; };
  const auto none = runner->run({&prompt, 1}, {.on_result = keep});
  ASSERT_TRUE(none.ok()) << none.status().message();
  EXPECT_EQ(none->score, 0.0);
  EXPECT_EQ(none->exact, 0.0);
  EXPECT_FALSE(none->cross_entropy.has_value());
  EXPECT_FALSE(none->sources.has_value());
  ASSERT_GT(answer.size(), 4u);
  const std::string whole = answer;
  prompt.expected = {whole.substr(0, 2), "\n\n never said \n\n"};
  EXPECT_EQ(runner->run({&prompt, 1}, {.on_result = keep})->score, 0.5);
  EXPECT_EQ(answer, whole) << "one is missing to the end";
  prompt.expected.pop_back();
  const auto found = runner->run({&prompt, 1}, {.on_result = keep});
  EXPECT_EQ(found->exact, 1.0);
  EXPECT_LT(answer.size(), whole.size());
  EXPECT_LT(found->tokens, none->tokens);
}

TEST_F(TinyTasks, ProgressReachesTheTotalAndCanCancel) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  const auto prompts = passkey_prompts(*engine_, *filler, {.length = 700, .trials = 2});
  ASSERT_TRUE(prompts.ok()) << prompts.status().message();
  auto runner = TrialRunner::create(*engine_);
  TrialOptions options;
  Progress last;
  options.progress = [&](const Progress& p) {
    EXPECT_GE(p.done, last.done);
    last = p;
    return true;
  };
  ASSERT_TRUE(runner->run(*prompts, options).ok());
  EXPECT_GT(last.total, 700);
  EXPECT_EQ(last.done, last.total);
  options.progress = [](const Progress&) { return false; };
  const auto cancelled = runner->run(*prompts, options);
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.status().code(), Code::cancelled);
  const auto no_figure = run_ppl(*engine_, *filler, {.length = 600, .progress = options.progress});
  ASSERT_FALSE(no_figure.ok());
  EXPECT_EQ(no_figure.status().code(), Code::cancelled);
  EXPECT_TRUE(runner->run(*prompts, {}).ok()) << "a cancelled run leaves the session usable";
  EXPECT_FALSE(runner->run({}, {}).ok());
}

TEST_F(TinyTasks, CrossEntropyIsOfTheLastTokensOfEachBand) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  const std::vector<TokenId> text = *filler->piece(0, 600);
  const auto session = engine_->new_session();
  ASSERT_TRUE(session.ok());
  const auto vocab = static_cast<size_t>(engine_->info().vocab);
  ASSERT_TRUE((*session)->append(std::span(text).first(599), {.logits = 599}).ok());
  ASSERT_EQ((*session)->logits().size(), 599 * vocab);
  const auto mean_nll = [&](size_t from, size_t to) {
    double nll = 0;
    for (size_t t = from; t < to; ++t) nll += score_token((*session)->logits().subspan((t - 1) * vocab, vocab), text[t])->nll;
    return nll / static_cast<double>(to - from);
  };

  const auto one = run_ppl(*engine_, {"text", text, false}, {.length = 600});
  ASSERT_TRUE(one.ok()) << one.status().message();
  ASSERT_EQ(one->size(), 1u);
  EXPECT_EQ(one->front().trials, 1);
  EXPECT_EQ(one->front().tokens, 599);
  EXPECT_FALSE(one->front().depth.has_value());
  EXPECT_FALSE(one->front().exact.has_value());
  EXPECT_NEAR(*one->front().cross_entropy, mean_nll(88, 600), 1e-5);

  const auto three = run_ppl(*engine_, {"text", text, false}, {.length = 600, .depths = 3, .rows = 50});
  ASSERT_TRUE(three.ok()) << three.status().message();
  ASSERT_EQ(three->size(), 3u);
  for (size_t b = 0; b < 3; ++b) {
    EXPECT_EQ((*three)[b].depth, (static_cast<double>(b) + 0.5) / 3);
    const size_t end = std::vector<size_t>{193, 385, 600}[b];  // 192 and 384 are the last whole pages below 200 and 400
    EXPECT_NEAR(*(*three)[b].cross_entropy, mean_nll(end - 50, end), 1e-5) << b;
    EXPECT_EQ((*three)[b].tokens, (std::vector<int64_t>{192, 192, 215}[b]));
  }
  const auto refused = run_ppl(*engine_, *filler, {.length = 512});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("1 to 511 tokens of each can be scored, not 512"), std::string::npos)
      << refused.status().message();
  EXPECT_FALSE(run_ppl(*engine_, *filler, {.length = 600, .depths = 3, .rows = 193}).ok());
}

TEST_F(TinyTasks, CrossEntropyOfDecodedTokensIsThatOfASessionThatDecodesThem) {
  ASSERT_NE(engine_, nullptr);
  const std::vector<TokenId> text = *filler_corpus(*engine_)->piece(0, 600);
  const auto session = engine_->new_session();
  ASSERT_TRUE(session.ok());
  std::vector<double> nll;
  size_t fed = 0;
  for (const auto& [appended, end] : {std::pair<size_t, size_t>{206, 256}, {549, 599}}) {
    ASSERT_TRUE((*session)->append(std::span(text).subspan(fed, appended - fed)).ok());
    double sum = 0;
    for (fed = appended; fed < end; ++fed) {
      ASSERT_TRUE((*session)->decode(text[fed]).ok());
      sum += score_token((*session)->logits(), text[fed + 1])->nll;
    }
    nll.push_back(sum / 50);
  }
  const Corpus corpus{"text", text, false};
  const auto bands = run_ppl(*engine_, corpus, {.length = 600, .depths = 2, .rows = 50, .decoded = true});
  ASSERT_TRUE(bands.ok()) << bands.status().message();
  ASSERT_EQ(bands->size(), 2u);
  const auto last = run_ppl(*engine_, corpus, {.length = 600, .rows = 50, .decoded = true});
  ASSERT_TRUE(last.ok()) << last.status().message();
  EXPECT_EQ(last->front().tokens, 599);
  for (size_t b = 0; b < 2; ++b) EXPECT_NEAR(*(*bands)[b].cross_entropy, nll[b], 1e-6) << b;
  int64_t asked = 0;
  const auto stopped =
      run_ppl(*engine_, corpus,
              {.length = 600, .rows = 50, .decoded = true, .progress = [&](const Progress& p) { return (asked = p.done) < 560; }});
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.status().code(), Code::cancelled);
  EXPECT_EQ(asked, 560) << "after one of the decoded tokens";
}

TEST_F(TinyTasks, LogitsOfTheSamePlanAreTheSame) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  const LogitsOptions options{.length = 900, .trials = 2, .rows = 3};
  const auto logits = final_logits(*engine_, *filler, options);
  ASSERT_TRUE(logits.ok()) << logits.status().message();
  const int64_t vocab = engine_->info().vocab;
  ASSERT_EQ(logits->values.size(), static_cast<size_t>(2 * 3 * vocab));
  const auto cell = logits_cell(*logits, *final_logits(*engine_, *filler, options), vocab, options);
  ASSERT_TRUE(cell.ok()) << cell.status().message();
  EXPECT_EQ(cell->relative_error, 0.0);
  EXPECT_EQ(cell->score, 1.0);
  const auto beyond = final_logits(*engine_, *filler, {.length = 8193});
  ASSERT_FALSE(beyond.ok());
  EXPECT_NE(beyond.status().message().find("outside the trained context of 8192"), std::string::npos) << beyond.status().message();
  EXPECT_FALSE(final_logits(*engine_, *filler, {.length = 10, .rows = 11}).ok());
}

}  // namespace
}  // namespace bough::eval
