#include "eval/ppl.h"

#include <chrono>
#include <span>
#include <utility>

#include "base/check.h"
#include "eval/score.h"

namespace bough::eval {
namespace {

// Sum of -log p over the last scored_tokens tokens of `text`. Row i of the logits predicts token i + 1, so the last token is never fed.
Result<double> text_nll(Session& session, std::span<const TokenId> text, int64_t vocab,
                        const std::function<bool(const Progress&)>& progress) {
  AppendOptions append;
  append.logits = scored_tokens;
  bool going = true;
  append.progress = [&](const Progress& p) { return going = !progress || progress(p); };
  BOUGH_RETURN_IF_ERROR(session.rollback(0));
  BOUGH_RETURN_IF_ERROR(session.append(text.first(text.size() - 1), append));
  if (!going) return Status(Code::cancelled, "stopped at the end of a text");
  const std::span<const float> logits = session.logits();
  if (logits.size() != static_cast<size_t>(scored_tokens * vocab)) {
    return Status(Code::internal,
                  "the engine kept " + std::to_string(logits.size()) + " logits instead of " + std::to_string(scored_tokens * vocab));
  }
  const auto scored = text.last(static_cast<size_t>(scored_tokens));
  double nll = 0;
  for (size_t i = 0; i < scored.size(); ++i) {
    const auto row = logits.subspan(i * static_cast<size_t>(vocab), static_cast<size_t>(vocab));
    BOUGH_ASSIGN_OR_RETURN(const Score score, score_token(row, scored[i]));
    nll += score.nll;
  }
  return nll;
}

}  // namespace

Result<std::vector<int64_t>> ppl_offsets(const Corpus& corpus, int64_t length) {
  const int64_t starts = corpus.starts(length);
  if (starts < 1) {
    return Status(Code::invalid_argument, "the text '" + corpus.name + "' has " + std::to_string(corpus.tokens.size()) + " tokens, and " +
                                              std::to_string(length) + " are needed");
  }
  const int64_t second = 100'000 % starts;
  if (second == 0) return std::vector<int64_t>{0};
  return std::vector<int64_t>{0, second};
}

Result<Cell> run_ppl(Engine& engine, const Corpus& corpus, const PplOptions& options) {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> begin, engine.tokenize("", /*add_bos=*/true));
  const int64_t pieces = options.length - static_cast<int64_t>(begin.size());
  if (pieces <= scored_tokens) {
    return Status(Code::invalid_argument, "a text of " + std::to_string(options.length) + " tokens is too short: at least " +
                                              std::to_string(scored_tokens + 1 + static_cast<int64_t>(begin.size())) + " are needed");
  }
  BOUGH_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, ppl_offsets(corpus, pieces));
  const auto texts = static_cast<int64_t>(offsets.size());
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  int64_t read = 0;
  double nll = 0;
  for (const int64_t offset : offsets) {
    std::vector<TokenId> text = begin;
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> piece, corpus.piece(offset, pieces));
    text.insert(text.end(), piece.begin(), piece.end());
    const auto report = [&](const Progress& p) {
      return !options.progress || options.progress({.done = read + p.done, .total = texts * (options.length - 1), .seconds = elapsed()});
    };
    BOUGH_ASSIGN_OR_RETURN(const double sum, text_nll(*session, text, engine.info().vocab, report));
    nll += sum;
    read += options.length - 1;
  }
  Cell cell{.task = "ppl", .length = options.length, .text = corpus.name, .trials = static_cast<int>(texts)};
  cell.cross_entropy = nll / static_cast<double>(texts * scored_tokens);
  cell.tokens = read;
  cell.seconds = elapsed();
  return cell;
}

}  // namespace bough::eval
