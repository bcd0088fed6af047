// adjust: bias and penalties on one row of logits.
#pragma once

#include <span>

#include "bough/generate.h"
#include "bough/types.h"

namespace bough {

struct AdjustArgs {
  std::span<float> logits;           // [vocab], in place; those of tokens that nothing names keep their bits
  std::span<const TokenId> history;  // the tokens that the penalties look at
  float repeat_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::span<const LogitBias> bias;
};

// Bias first, then for each token of the history once: l > 0 ? l / repeat : l * repeat, minus presence, minus frequency times its
// occurrences. In double, clamped to the finite floats unless the logit was -inf or NaN, or the bias is -inf. REQUIRES: all tokens in
// [0, vocab), penalties finite, repeat_penalty > 0, biases below +inf and no NaN.
void adjust(const AdjustArgs& args);

// Does it change anything at all?
inline bool adjusts(const AdjustArgs& a) {
  const bool penalties = a.repeat_penalty != 1 || a.frequency_penalty != 0 || a.presence_penalty != 0;
  return !a.bias.empty() || (penalties && !a.history.empty());
}

}  // namespace bough
