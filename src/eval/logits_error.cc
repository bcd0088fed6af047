// Final logits against dense attention's.
#include "eval/logits_error.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"

namespace bough::eval {
namespace {

// log of the sum of exponentials.
double log_total(std::span<const float> row) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(x - most);
  return most + std::log(sum);
}

Status check_lengths(const Engine& engine, const LogitsOptions& options) {
  const int64_t trained = engine.info().trained_context;
  if (options.length > trained) {
    return {Code::invalid_argument, "a text of " + std::to_string(options.length) + " tokens is outside the trained context of " +
                                        std::to_string(trained) + " tokens, where dense attention is no reference"};
  }
  if (options.trials < 1) return {Code::invalid_argument, "trials must be at least 1, not " + std::to_string(options.trials)};
  if (options.rows >= 1 && options.rows <= options.length) return {};
  return {Code::invalid_argument, std::to_string(options.rows) + " rows cannot be compared in a text of " + std::to_string(options.length) +
                                      " tokens: 1 to " + std::to_string(options.length) + " can"};
}

}  // namespace

Result<FinalLogits> final_logits(Engine& engine, const Corpus& corpus, const LogitsOptions& options) {
  BOUGH_RETURN_IF_ERROR(check_lengths(engine, options));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> begin, engine.tokenize("", /*add_bos=*/true));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  FinalLogits logits;
  for (int trial = 0; trial < options.trials; ++trial) {
    std::vector<TokenId> text = begin;
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> piece,
                           trial_haystack(corpus, {}, trial, options.length - static_cast<int64_t>(begin.size())));
    append_to(text, piece);
    BOUGH_RETURN_IF_ERROR(session->rollback(0));
    bool going = true;
    AppendOptions append{.will_sample = true, .logits = options.rows};
    append.progress = [&](const Progress& p) {
      const Progress all{.done = trial * options.length + p.done, .total = options.trials * options.length, .seconds = elapsed()};
      return going = !options.progress || options.progress(all);
    };
    BOUGH_RETURN_IF_ERROR(session->append(text, append));
    if (!going) return Status(Code::cancelled, "stopped at the end of a text");
    const std::span<const float> rows = session->logits();
    logits.values.insert(logits.values.end(), rows.begin(), rows.end());
  }
  logits.seconds = elapsed();
  return logits;
}

Result<RowError> compare_row(std::span<const float> reference, std::span<const float> row) {
  if (reference.empty() || reference.size() != row.size()) {
    return Status(Code::internal,
                  "rows of " + std::to_string(reference.size()) + " and " + std::to_string(row.size()) + " logits cannot be compared");
  }
  const double p_total = log_total(reference);
  const double q_total = log_total(row);
  double difference = 0;
  double norm = 0;
  RowError error;
  for (size_t i = 0; i < row.size(); ++i) {
    const double p = reference[i];
    const double q = row[i];
    difference += (q - p) * (q - p);
    norm += p * p;
    error.divergence += std::exp(p - p_total) * ((p - p_total) - (q - q_total));
  }
  error.relative = std::sqrt(difference / norm);
  error.divergence = std::max(0.0, error.divergence);  // not below by a rounding error
  error.same_choice =
      std::max_element(reference.begin(), reference.end()) - reference.begin() == std::max_element(row.begin(), row.end()) - row.begin();
  if (std::isfinite(error.relative) && std::isfinite(error.divergence)) return error;
  return Status(Code::internal, "the error of a row of logits is not finite");
}

Result<Cell> logits_cell(const FinalLogits& reference, const FinalLogits& logits, int64_t vocab, const LogitsOptions& options) {
  const auto width = static_cast<size_t>(vocab);
  const auto rows = static_cast<size_t>(options.rows);
  const auto texts = static_cast<size_t>(options.trials);
  if (reference.values.size() != texts * rows * width || logits.values.size() != reference.values.size()) {
    return Status(Code::internal, std::to_string(reference.values.size()) + " and " + std::to_string(logits.values.size()) +
                                      " logits cannot be compared in " + std::to_string(texts * rows) + " rows");
  }
  double relative = 0;
  double divergence = 0;
  size_t same = 0;
  size_t exact = 0;
  for (size_t text = 0; text < texts; ++text) {
    size_t same_here = 0;
    for (size_t r = text * rows; r < (text + 1) * rows; ++r) {
      BOUGH_ASSIGN_OR_RETURN(const RowError error, compare_row(std::span(reference.values).subspan(r * width, width),
                                                               std::span(logits.values).subspan(r * width, width)));
      relative += error.relative;
      divergence += error.divergence;
      same_here += error.same_choice ? 1 : 0;
    }
    same += same_here;
    exact += same_here == rows ? 1 : 0;
  }
  const auto count = static_cast<double>(texts * rows);
  Cell cell;
  cell.trials = options.trials;
  cell.relative_error = relative / count;
  cell.divergence = divergence / count;
  cell.score = static_cast<double>(same) / count;
  cell.exact = static_cast<double>(exact) / static_cast<double>(texts);
  cell.tokens = options.trials * options.length;
  cell.seconds = logits.seconds;
  return cell;
}

}  // namespace bough::eval
