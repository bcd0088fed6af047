// What one query of one head looks at: its exact attention over the text, what a plan's stages kept for it, what it got to see, and what
// it missed.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bough/engine.h"

namespace bough::eval {

// Tokens [begin, end).
struct TokenRun {
  int64_t begin = 0;
  int64_t end = 0;

  bool operator==(const TokenRun&) const = default;
};

struct TraceOptions {
  int layer = 0;
  int head = 0;                                   // query head
  int64_t query = 0;                              // position of the token that asks, in the whole text
  std::function<bool(const Progress&)> progress;  // false cancels
};

struct StageTrace {
  int chunk = 0;               // tokens
  std::vector<TokenRun> kept;  // in text order, neighbours as one run
};

struct AttentionTrace {
  std::vector<float> mass;  // [query + 1] of the query's attention, sums to 1
  std::vector<StageTrace> stages;
  // The context: these parts do not overlap, and the query sees nothing else.
  std::vector<TokenRun> sinks;     // none or one
  std::vector<TokenRun> selected;  // neighbours as one run
  std::vector<TokenRun> window;    // one, which ends with the query
  int chunk = 0;                   // grain of the selection
  bool true_positions = false;
};

// Reads the text as one prompt, up to the query's query block, and looks at one row of one layer. The last tokens of a text select each
// for itself, others with their query block, as in every prompt. Errors: invalid_argument (a layer, head or position that is not there),
// cancelled, those of Session::append.
Result<AttentionTrace> trace_attention(Engine& engine, std::span<const TokenId> text, const TraceOptions& options);

struct MissedBlock {
  TokenRun tokens;
  double mass = 0;
};

// Shares of the query's attention. sinks + selected + window + missed is 1 but for rounding.
struct AttentionShares {
  double sinks = 0;
  double selected = 0;
  double window = 0;
  double missed = 0;
  std::vector<double> stages;       // in what each stage kept, between sinks and window
  double outside = 0;               // between sinks and window, kept or not
  std::vector<MissedBlock> blocks;  // that were missed, the heaviest first
};

// most_blocks: of `blocks`; they are chunks of the selection's grain.
AttentionShares attention_shares(const AttentionTrace& trace, int64_t most_blocks);

}  // namespace bough::eval
