// Teacher-forced scores: what the model gave a known next token.
#pragma once

#include <cstdint>
#include <span>

#include "bough/status.h"
#include "bough/types.h"

namespace bough::eval {

struct Score {
  double nll = 0;  // -log p(token), nats
  bool first_choice = false;
};

// `logits`: one row, [vocab]. Of equal logits the lower id is the first choice. Errors: internal (an empty row, a token outside it, or
// a log-probability that is no number).
Result<Score> score_token(std::span<const float> logits, TokenId token);

// The last row of [rows, vocab]; empty when there is none.
inline std::span<const float> last_row(std::span<const float> logits, int64_t vocab) {
  const auto row = static_cast<size_t>(vocab);
  return logits.size() < row ? std::span<const float>() : logits.last(row);
}

}  // namespace bough::eval
