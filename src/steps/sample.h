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
  int64_t top_k = 0;      // keep the k highest logits; 0: all
  float top_p = 1;        // (0, 1]: keep the fewest of the likeliest whose probabilities, among those kept so far, add up to it
  float min_p = 0;        // [0, 1]: keep those at least this share as likely as the likeliest
  uint64_t seed = 0;
  uint64_t step = 0;  // tokens that this answer already has
};

// Bodies: ModelBodies::sample. Temperature 0: the highest logit, of equal ones the lowest id. Otherwise a draw from softmax(logits /
// temperature) over the tokens that top_k, then top_p, then min_p keep (of equal logits the lower id stays), in double. The draw
// takes the kept tokens in order of their ids and depends on (seed, step) alone, so it is the same whatever was sampled before or beside
// it. All bodies give the same token. Never keeps less than one token.
// Errors: those of check_sampling; internal (no token to choose from; a logit that is NaN or +inf, with its index).

// Errors: invalid_argument (temperature, top_k, top_p or min_p outside its range); internal (no logits).
Status check_sampling(const SampleArgs& args);

// Errors: internal (a logit that is NaN or +inf, with its index; all -inf).
Status check_logits(std::span<const float> logits);

// In [0, 1), 53 bits, uniform over steps and seeds.
double uniform_draw(uint64_t seed, uint64_t step);

// Natural logarithms of softmax(logits), in double. NaN when a logit is NaN or +inf, when all are -inf, or when a token is not in
// [0, logits.size()).
class LogProbs {
 public:
  explicit LogProbs(std::span<const float> logits);
  double operator[](TokenId token) const;

 private:
  std::span<const float> logits_;
  double top_ = 0;
  double log_total_ = 0;  // of exp(logit - top)
};

double log_prob(std::span<const float> logits, TokenId token);

}  // namespace bough
