// How much attention mass a plan's selection keeps on a model's own queries and keys, beside the best and a random selection of the same
// size.
//
// For query blocks sampled along a text, every eighth row and every head: exact softmax over all keys that the row may see. What falls
// outside sinks and window is what a selection is about; shares are of that. Positions are the true ones up to the trained context;
// in longer texts, where true positions mean nothing, every key stands at the window's distance from the query.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"

namespace bough::eval {

struct MassOptions {
  int64_t length = 0;                             // tokens of the text
  int blocks = 8;                                 // query blocks sampled, spread evenly over the part of the text that is pruned
  std::function<bool(const Progress&)> progress;  // false cancels
};

struct LayerMass {
  int layer = 0;
  double outside = 0;  // share of the whole mass that falls outside sinks and window, 0..1
  // Shares of that, 0..1:
  double kept = 0;    // by the plan's selection
  double best = 0;    // by the best of all selections of as many chunks, a list for each list head
  double random = 0;  // by a random one, on average
};

struct MassReport {
  std::vector<LayerMass> layers;  // those that select
  LayerMass all;                  // over these layers; layer is -1
  int64_t blocks = 0;             // sampled
  bool true_positions = false;
  double seconds = 0;
};

// Errors: invalid_argument (the text is too short, or so short that nothing is pruned; the plan selects nothing), cancelled, those of
// Session::append.
Result<MassReport> run_mass(Engine& engine, const Corpus& corpus, const MassOptions& options);

}  // namespace bough::eval
