// How much attention a plan's selection keeps on a model's own queries and keys, beside the exact and a random selection of the same
// size.
//
// For query blocks sampled along a text, every eighth row and every head: exact softmax over all keys that the row may see
// (eval/exact_attention.h). What falls outside sinks and window is what a selection is about; shares of mass are of that.
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

// All of 0..1. The exact selection is the list of as many chunks that has most mass, over the block's rows and the heads that share it.
struct MassShares {
  double outside = 0;  // share of the whole mass that falls outside sinks and window
  // Shares of that:
  double kept = 0;    // in the plan's selection
  double best = 0;    // in the exact selection
  double random = 0;  // in a random one, on average
  // A head's own top chunks are those in which its mass outside is largest, as many as the selection has. The share of them that is:
  double top_kept = 0;    // in the plan's selection
  double top_best = 0;    // in the exact selection
  double top_random = 0;  // in a random one, on average
  // Shares of the mass outside that what each stage kept holds; none where nothing is searched in stages.
  std::vector<double> stages;
};

struct LayerMass {
  int layer = 0;
  MassShares all;
  std::vector<MassShares> heads;  // [query heads]
};

struct MassReport {
  std::vector<LayerMass> layers;  // those that select
  MassShares all;                 // over these layers
  int64_t blocks = 0;             // sampled
  bool true_positions = false;    // whether keys stand at their own positions
  // Work, on average over all rows, layers and KV heads of the text:
  double keys_searched = 0;  // keys that searches scored
  double keys_attended = 0;  // keys attended to
  double seconds = 0;
};

// Errors: invalid_argument (the text is too short, or so short that nothing is pruned; the plan selects nothing), cancelled, those of
// Session::append.
Result<MassReport> run_mass(Engine& engine, const Corpus& corpus, const MassOptions& options);

}  // namespace bough::eval
