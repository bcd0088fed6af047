// Cross-entropy by depth.
#include "eval/ppl.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <string>
#include <utility>

#include "base/check.h"
#include "eval/score.h"

namespace bough::eval {
namespace {

constexpr int64_t page = 64;

// Tokens fed by the end of band b: whole pages, so that appending band after band gives the same bits as reading all at once; in the
// last band all but the last token, which is only predicted.
int64_t fed_after(const PplOptions& options, int64_t b) {
  if (b + 1 == options.depths) return options.length - 1;
  return (b + 1) * options.length / options.depths / page * page;
}

// Sum of -log p of `scored`, whose predictions are the last rows of the session's logits.
Result<double> sum_nll(std::span<const float> logits, std::span<const TokenId> scored, int64_t vocab) {
  const size_t row = static_cast<size_t>(vocab);
  if (logits.size() != scored.size() * row) {
    return Status(Code::internal,
                  "the engine kept " + std::to_string(logits.size()) + " logits instead of " + std::to_string(scored.size() * row));
  }
  double nll = 0;
  for (size_t i = 0; i < scored.size(); ++i) {
    BOUGH_ASSIGN_OR_RETURN(const Score score, score_token(logits.subspan(i * row, row), scored[i]));
    nll += score.nll;
  }
  return nll;
}

// One text, band after band.
class TextReader {
 public:
  TextReader(Session& session, int64_t vocab, const PplOptions& options) : session_(session), vocab_(vocab), options_(options) {}

  // Row i of the logits predicts token i + 1.
  Status read(std::span<const TokenId> text, std::span<Cell> bands, const std::function<bool(int64_t)>& report) {
    BOUGH_RETURN_IF_ERROR(session_.rollback(0));
    const auto depths = static_cast<int64_t>(bands.size());
    const auto start = std::chrono::steady_clock::now();
    double before = 0;
    for (int64_t b = 0; b < depths; ++b) {
      const int64_t from = session_.length();
      const int64_t end = fed_after(options_, b);
      bool going = true;
      const int64_t appended = options_.decoded ? end - options_.rows : end;
      AppendOptions append;
      append.logits = options_.decoded ? 0 : options_.rows;
      append.progress = [&](const Progress& p) { return going = report(from + p.done); };
      BOUGH_RETURN_IF_ERROR(session_.append(text.subspan(static_cast<size_t>(from), static_cast<size_t>(appended - from)), append));
      if (!going) return Status(Code::cancelled, "stopped at the end of a band");
      const auto scored = text.subspan(static_cast<size_t>(end + 1 - options_.rows), static_cast<size_t>(options_.rows));
      BOUGH_ASSIGN_OR_RETURN(const double nll, options_.decoded ? decode(text.subspan(static_cast<size_t>(appended)), report)
                                                                : sum_nll(session_.logits(), scored, vocab_));
      const double now = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      Cell& cell = bands[static_cast<size_t>(b)];
      cell.cross_entropy = cell.cross_entropy.value_or(0) + nll;
      cell.tokens += end - from;
      cell.seconds += now - before;
      before = now;
    }
    return {};
  }

 private:
  // Feeds `rows` tokens one by one; the sum of -log p of what follows each.
  Result<double> decode(std::span<const TokenId> text, const std::function<bool(int64_t)>& report) {
    double nll = 0;
    for (size_t i = 0; i < static_cast<size_t>(options_.rows); ++i) {
      BOUGH_RETURN_IF_ERROR(session_.decode(text[i]));
      BOUGH_ASSIGN_OR_RETURN(const double one, sum_nll(session_.logits(), text.subspan(i + 1, 1), vocab_));
      nll += one;
      if (!report(session_.length())) return Status(Code::cancelled, "stopped between decoded tokens");
    }
    return nll;
  }

  Session& session_;
  int64_t vocab_;
  const PplOptions& options_;
};

Status check_bands(const PplOptions& options) {
  if (options.depths < 1) return {Code::invalid_argument, "a text has at least 1 band, not " + std::to_string(options.depths)};
  int64_t shortest = options.length;
  for (int b = 0; b < options.depths; ++b) shortest = std::min(shortest, fed_after(options, b) - fed_after(options, b - 1));
  if (options.rows >= 1 && options.rows <= shortest) return {};
  return {Code::invalid_argument, "of a text of " + std::to_string(options.length) + " tokens in " + std::to_string(options.depths) +
                                      " bands 1 to " + std::to_string(shortest) + " tokens of each can be scored, not " +
                                      std::to_string(options.rows)};
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

Result<std::vector<Cell>> run_ppl(Engine& engine, const Corpus& corpus, const PplOptions& options) {
  BOUGH_RETURN_IF_ERROR(check_bands(options));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> begin, engine.tokenize("", /*add_bos=*/true));
  const int64_t pieces = options.length - static_cast<int64_t>(begin.size());
  BOUGH_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, ppl_offsets(corpus, pieces));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  const auto start = std::chrono::steady_clock::now();
  std::vector<Cell> cells(static_cast<size_t>(options.depths));
  TextReader reader(*session, engine.info().vocab, options);
  const int64_t fed = options.length - 1;
  for (size_t i = 0; i < offsets.size(); ++i) {
    std::vector<TokenId> text = begin;
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> piece, corpus.piece(offsets[i], pieces));
    text.insert(text.end(), piece.begin(), piece.end());
    BOUGH_RETURN_IF_ERROR(reader.read(text, cells, [&](int64_t read) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const auto texts = static_cast<int64_t>(offsets.size());
      return !options.progress ||
             options.progress({.done = static_cast<int64_t>(i) * fed + read, .total = texts * fed, .seconds = seconds});
    }));
  }
  for (int b = 0; b < options.depths; ++b) {
    Cell& cell = cells[static_cast<size_t>(b)];
    cell.depth = band_depth(b, options.depths);
    cell.trials = static_cast<int>(offsets.size());
    cell.cross_entropy = *cell.cross_entropy / static_cast<double>(cell.trials * options.rows);
  }
  return cells;
}

}  // namespace bough::eval
