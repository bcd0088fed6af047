// Quality tasks: prompts, prefixes, results; figures of a tiny random model.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "eval/corpus.h"
#include "eval/passkey.h"
#include "eval/ppl.h"
#include "eval/report.h"
#include "eval/score.h"
#include "support/tiny_gguf.h"

namespace bough::eval {
namespace {

constexpr TokenId stop = 7;  // stands for a full stop

Corpus book(int64_t count) {
  Corpus corpus{"book", std::vector<TokenId>(static_cast<size_t>(count)), false};
  for (size_t i = 0; i < corpus.tokens.size(); ++i) corpus.tokens[i] = i % 10 == 9 ? stop : static_cast<TokenId>(1000 + i);
  return corpus;
}

PasskeyParts parts() { return {{1, 2, 3}, {101, 102, 103, 104}, {201, 202}, {301, 302}}; }

bool is_stop(TokenId token) { return token == stop; }

bool has_no_stop(TokenId) { return false; }

TEST(Corpus, PiecesWrapOnlyWhenEndless) {
  Corpus corpus{"c", {1, 2, 3}, false};
  EXPECT_EQ(corpus.starts(3), 1);
  EXPECT_EQ(corpus.starts(4), 0);
  EXPECT_EQ(*corpus.piece(1, 2), (std::vector<TokenId>{2, 3}));
  const auto beyond = corpus.piece(2, 2);
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.status().code(), Code::invalid_argument);
  EXPECT_NE(beyond.status().message().find("has 3 tokens"), std::string::npos);
  EXPECT_FALSE(corpus.piece(-1, 1).ok());
  corpus.endless = true;
  EXPECT_EQ(*corpus.piece(2, 5), (std::vector<TokenId>{3, 1, 2, 3, 1}));
}

TEST(Passkey, KeysHaveFiveDigitsAndFollowSeedAndTrial) {
  std::set<std::string> keys;
  for (int i = 0; i < 100; ++i) {
    const std::string key = passkey_of(5, i);
    ASSERT_EQ(key.size(), 5u);
    EXPECT_NE(key[0], '0');
    keys.insert(key);
  }
  EXPECT_GT(keys.size(), 95u);
  EXPECT_EQ(passkey_of(5, 3), passkey_of(5, 3));
  EXPECT_NE(passkey_of(5, 3), passkey_of(6, 3));
}

TEST(Passkey, PromptHasTheLengthAndTheNeedleAfterAFullStop) {
  for (int trial = 0; trial < 4; ++trial) {
    const auto prompt = assemble_passkey(parts(), book(5000), {trial, 4, 509, 0, true}, is_stop);
    ASSERT_TRUE(prompt.ok());
    EXPECT_EQ(prompt->text.size() + prompt->question.size(), 509u);
    const auto at = static_cast<size_t>(prompt->needle);
    EXPECT_EQ(prompt->text[at], 101);
    EXPECT_EQ(prompt->needle_tokens, 4);
    EXPECT_EQ(prompt->text[at - 1], stop);
    EXPECT_NEAR(static_cast<double>(at), 3 + (trial + 0.5) / 4 * 500, 6);
    EXPECT_EQ(prompt->question, parts().question);
    EXPECT_EQ(prompt->answer, parts().answer);
  }
}

TEST(Passkey, WithoutFullStopsTheDepthIsExact) {
  const auto prompt = assemble_passkey(parts(), book(5000), {1, 2, 509, 0, true}, has_no_stop);
  ASSERT_TRUE(prompt.ok());
  EXPECT_EQ(prompt->needle, 3 + 375);
}

TEST(Passkey, EachTrialHasItsOwnHaystackUnlessOneIsAskedFor) {
  const Corpus corpus = book(50'000);
  const auto first = assemble_passkey(parts(), corpus, {0, 4, 509, 0, false}, is_stop);
  const auto second = assemble_passkey(parts(), corpus, {1, 4, 509, 0, false}, is_stop);
  const auto same = assemble_passkey(parts(), corpus, {1, 4, 509, 0, true}, is_stop);
  ASSERT_TRUE(first.ok() && second.ok() && same.ok());
  EXPECT_EQ(first->text[3], 1000);
  EXPECT_EQ(second->text[3], 1000 + 9973);
  EXPECT_EQ(same->text[3], 1000);
}

TEST(Passkey, OffsetsWrapIntoAShortCorpus) {
  const auto prompt = assemble_passkey(parts(), book(600), {8, 10, 509, 0, false}, is_stop);
  ASSERT_TRUE(prompt.ok());
  EXPECT_EQ(prompt->text[3], 1000 + 8 * 9973 % 101);
}

TEST(Passkey, RefusesWhatCannotBeBuilt) {
  const auto too_short = assemble_passkey(parts(), book(600), {0, 1, 9, 0, false}, is_stop);
  ASSERT_FALSE(too_short.ok());
  EXPECT_NE(too_short.status().message().find("9 tokens is too short: at least 10"), std::string::npos) << too_short.status().message();
  const auto too_long = assemble_passkey(parts(), book(600), {0, 1, 700, 0, false}, is_stop);
  ASSERT_FALSE(too_long.ok());
  EXPECT_NE(too_long.status().message().find("has 600 tokens"), std::string::npos);
  EXPECT_FALSE(assemble_passkey(parts(), book(600), {2, 2, 100, 0, false}, is_stop).ok());
}

TEST(Passkey, SourceRankIsOfTheFirstPassageThatIsTheNeedle) {
  const PasskeyPrompt prompt{.text = {}, .question = {}, .answer = {}, .needle = 100, .needle_tokens = 20};
  const auto rank = [&](const std::vector<Source>& sources) { return source_rank(sources, prompt); };
  EXPECT_EQ(rank({}), 0);
  EXPECT_EQ(rank({{0, 32, 0.5}, {88, 20, 0.2}, {96, 64, 0.1}}), 3) << "8 of 20 tokens are not half; the whole needle is";
  EXPECT_EQ(rank({{104, 8, 0.5}}), 1);
  EXPECT_EQ(rank({{116, 8, 0.5}}), 1);
  EXPECT_EQ(rank({{117, 8, 0.5}, {120, 8, 0.5}}), 0);
}

TEST(Passkey, SharedPrefixIsWholePages) {
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

TEST(Ppl, OffsetsStayInsideTheText) {
  EXPECT_EQ(*ppl_offsets(book(300'000), 8192), (std::vector<int64_t>{0, 100'000}));
  EXPECT_EQ(*ppl_offsets(book(1000), 600), (std::vector<int64_t>{0, 100'000 % 401}));
  EXPECT_EQ(*ppl_offsets(book(600), 600), (std::vector<int64_t>{0}));
  EXPECT_FALSE(ppl_offsets(book(600), 601).ok());
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

TEST(Report, CellsComeBackFromTheirLine) {
  Cell cell{.task = "passkey", .plan = R"({"mode":"dense"})", .length = 8192, .text = "b\"ook", .trials = 10};
  cell.exact = 0.9;
  cell.digits = 1.0 / 3;
  cell.cross_entropy = 0.123456789012345;
  cell.tokens = 81234;
  cell.seconds = 12.5;
  cell.model = "m.gguf";
  cell.kv = "bf16";
  cell.seed = 18446744073709551615u;
  cell.one_haystack = true;
  const std::string line = cell_json(cell);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = parse_cell(line);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(cell_json(*back), line);
  EXPECT_EQ(cell_key(*back), cell_key(cell));
  EXPECT_EQ(back->digits, cell.digits);
}

TEST(Report, PplHasNoShares) {
  const Cell cell{.task = "ppl", .length = 8192, .text = "book", .trials = 2};
  EXPECT_NE(cell_json(cell).find(R"("exact":null,"digits":null)"), std::string::npos);
  const auto back = parse_cell(cell_json(cell));
  ASSERT_TRUE(back.ok());
  EXPECT_FALSE(back->exact.has_value());
}

TEST(Report, KeysTellWhatWasMeasured) {
  Cell cell{.task = "passkey", .plan = "default", .length = 8192, .text = "book", .trials = 10};
  const std::string key = cell_key(cell);
  cell.seconds = 99;
  EXPECT_EQ(cell_key(cell), key) << "figures are not part of it";
  cell.model = "other.gguf";
  EXPECT_NE(cell_key(cell), key);
}

TEST(Report, RefusesWhatIsNoCell) {
  for (const char* line : {"", "{", "[]", "null", "{}", R"({"task":"ppl"})", R"({"task":1,"plan":2})"}) {
    const auto cell = parse_cell(line);
    ASSERT_FALSE(cell.ok()) << line;
    EXPECT_EQ(cell.status().code(), Code::corrupt);
  }
}

TEST(Report, TableColumnsAlign) {
  Cell cell{.task = "passkey", .plan = std::string(100, 'x'), .length = 131072, .text = std::string(50, 'y'), .trials = 10};
  EXPECT_EQ(cell_table_header().size(), cell_table_row(cell).size());
  cell.plan = "default";
  cell.text = "filler";
  EXPECT_EQ(cell_table_header().size(), cell_table_row(cell).size());
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
  PasskeyOptions options{.length = 1200, .trials = 4, .seed = 3};
  std::vector<PasskeyResult> shared;
  options.on_result = [&](const PasskeyResult& result) { shared.push_back(result); };
  const auto cell = run_passkey(*engine_, *filler, options);
  ASSERT_TRUE(cell.ok()) << cell.status().message();
  std::vector<PasskeyResult> fresh;
  options.share_prefixes = false;
  options.on_result = [&](const PasskeyResult& result) { fresh.push_back(result); };
  const auto fresh_cell = run_passkey(*engine_, *filler, options);
  ASSERT_TRUE(fresh_cell.ok()) << fresh_cell.status().message();
  ASSERT_EQ(shared.size(), 4u);
  ASSERT_EQ(fresh.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(shared[i].trial, 3 - static_cast<int>(i)) << "from the deepest needle on";
    EXPECT_EQ(shared[i].nll, fresh[i].nll) << "trial " << shared[i].trial;
    EXPECT_EQ(shared[i].right, fresh[i].right);
  }
  EXPECT_LT(cell->tokens, fresh_cell->tokens);
  EXPECT_EQ(cell->cross_entropy, fresh_cell->cross_entropy);
  EXPECT_EQ(cell->task, "passkey");
  EXPECT_EQ(cell->text, "filler");
}

TEST_F(TinyTasks, ProgressReachesTheTotalAndCanCancel) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  PasskeyOptions options{.length = 700, .trials = 2};
  Progress last;
  options.progress = [&](const Progress& p) {
    EXPECT_GE(p.done, last.done);
    last = p;
    return true;
  };
  ASSERT_TRUE(run_passkey(*engine_, *filler, options).ok());
  EXPECT_GT(last.total, 700);
  EXPECT_EQ(last.done, last.total);
  options.progress = [](const Progress&) { return false; };
  const auto cancelled = run_passkey(*engine_, *filler, options);
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.status().code(), Code::cancelled);
  const auto no_figure = run_ppl(*engine_, *filler, {.length = 600, .progress = options.progress});
  ASSERT_FALSE(no_figure.ok());
  EXPECT_EQ(no_figure.status().code(), Code::cancelled);
}

TEST_F(TinyTasks, CrossEntropyIsOfTheLast512Tokens) {
  ASSERT_NE(engine_, nullptr);
  const auto filler = filler_corpus(*engine_);
  const std::vector<TokenId> text = *filler->piece(0, 600);
  const auto cell = run_ppl(*engine_, {"text", text, false}, {.length = 600});
  ASSERT_TRUE(cell.ok()) << cell.status().message();
  EXPECT_EQ(cell->trials, 1);
  EXPECT_EQ(cell->tokens, 599);
  EXPECT_FALSE(cell->exact.has_value());

  // With the logits of every row: row p predicts token p + 1, and the last 512 tokens are 88 .. 599.
  const auto session = engine_->new_session();
  ASSERT_TRUE(session.ok());
  const auto vocab = static_cast<size_t>(engine_->info().vocab);
  ASSERT_TRUE((*session)->append(std::span(text).first(599), {.logits = 599}).ok());
  ASSERT_EQ((*session)->logits().size(), 599 * vocab);
  double nll = 0;
  for (size_t p = 87; p < 599; ++p) nll += score_token((*session)->logits().subspan(p * vocab, vocab), text[p + 1])->nll;
  EXPECT_NEAR(cell->cross_entropy, nll / 512, 1e-5);
  EXPECT_FALSE(run_ppl(*engine_, *filler, {.length = 512}).ok());
}

}  // namespace
}  // namespace bough::eval
