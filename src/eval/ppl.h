// Cross-entropy of long texts by depth: of the last tokens of each band, the prompt's tail lists off, or as decode steps see them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/report.h"

namespace bough::eval {

struct PplOptions {
  int64_t length = 0;                             // tokens of each text
  int depths = 1;                                 // bands of equal length, their ends rounded down to pages of 64
  int64_t rows = 512;                             // tokens scored at the end of each band
  bool decoded = false;                           // they are fed one by one, as an answer is: each selects for itself, lists are kept
  std::function<bool(const Progress&)> progress;  // over all tokens that the texts take to read; false cancels
};

// Where the texts start: 0 and 100,000, wrapped into what the corpus has; one offset when both are the same place.
// Errors: invalid_argument (the corpus is shorter than `length`).
Result<std::vector<int64_t>> ppl_offsets(const Corpus& corpus, int64_t length);

// A cell for each band, the shallowest first. `length` counts the model's start token when it wants one. Fills depth, trials (texts),
// cross_entropy, tokens and seconds; those two are of the band alone. Errors: invalid_argument (a band is too short for `rows`, the
// corpus is too short), cancelled, those of Session::append.
Result<std::vector<Cell>> run_ppl(Engine& engine, const Corpus& corpus, const PplOptions& options);

}  // namespace bough::eval
