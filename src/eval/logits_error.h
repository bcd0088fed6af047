// How far a plan's final logits are from dense attention's, inside the trained context, where dense attention is what the model was
// trained with.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/report.h"

namespace bough::eval {

struct LogitsOptions {
  int64_t length = 0;                             // tokens of each text
  int trials = 4;                                 // texts, from token (trial x 9973) mod 300,000 of the corpus on
  int64_t rows = 16;                              // last rows of each text that are compared
  std::function<bool(const Progress&)> progress;  // over all tokens that the texts take to read; false cancels
};

// Logits of the last rows of every text, the prompt's tail lists on: [trials, rows, vocab].
struct FinalLogits {
  std::vector<float> values;
  double seconds = 0;
};

// Errors: invalid_argument (more than the trained context, fewer tokens than rows, a corpus too short), cancelled, those of
// Session::append.
Result<FinalLogits> final_logits(Engine& engine, const Corpus& corpus, const LogitsOptions& options);

struct RowError {
  double relative = 0;       // L2 norm of the difference over that of the reference
  double divergence = 0;     // sum of p log(p / q), p the reference's distribution; nats
  bool same_choice = false;  // of equal logits the lower id counts
};

// Errors: internal (empty or unequal rows, a figure that is not finite).
Result<RowError> compare_row(std::span<const float> reference, std::span<const float> row);

// Means over all rows: score is the share with the same first choice, exact that of texts whose rows all have it. Fills trials, the
// figures, tokens and seconds. Errors: internal (other sizes).
Result<Cell> logits_cell(const FinalLogits& reference, const FinalLogits& logits, int64_t vocab, const LogitsOptions& options);

}  // namespace bough::eval
