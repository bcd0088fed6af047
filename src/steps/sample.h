// sample: the next token from one row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "bough/status.h"
#include "bough/types.h"

namespace bough {

struct SampleArgs {
  const float* logits = nullptr;  // [vocab]; -inf forbids a token
  int64_t vocab = 0;
  float temperature = 0;  // finite, not negative; 0: greedy
  uint64_t seed = 0;
  uint64_t step = 0;  // tokens that this answer already has
};

// Temperature 0: the highest logit, of equal ones the lowest id. Otherwise a draw from softmax(logits / temperature), computed in
// double; the draw depends on (seed, step) alone, so it is the same whatever was sampled before or beside it.
// Errors: invalid_argument (temperature); internal (no token to choose from; a logit that is NaN or +inf, with its index).
Result<TokenId> sample(const SampleArgs& args);

// Natural logarithm of softmax(logits)[token], in double. NaN when a logit is NaN or +inf, when all are -inf, or when `token` is not in
// [0, logits.size()).
double log_prob(std::span<const float> logits, TokenId token);

}  // namespace bough
