// Cross-entropy of the last 512 tokens of long texts, the prompt's tail lists off.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/report.h"

namespace bough::eval {

inline constexpr int64_t scored_tokens = 512;

struct PplOptions {
  int64_t length = 0;                             // tokens of each text, more than scored_tokens
  std::function<bool(const Progress&)> progress;  // over all tokens that the cell reads; false cancels
};

// Where the texts start: 0 and 100,000, wrapped into what the corpus has; one offset when both are the same place.
// Errors: invalid_argument (the corpus is shorter than `length`).
Result<std::vector<int64_t>> ppl_offsets(const Corpus& corpus, int64_t length);

// `length` counts the model's start token when it wants one. Fills task, length, text, trials (texts), cross_entropy, tokens, seconds.
Result<Cell> run_ppl(Engine& engine, const Corpus& corpus, const PplOptions& options);

}  // namespace bough::eval
