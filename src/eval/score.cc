#include "eval/score.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "steps/sample.h"

namespace bough::eval {

Result<Score> score_token(std::span<const float> logits, TokenId token) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
    return Status(Code::internal, "token " + std::to_string(token) + " cannot be scored by " + std::to_string(logits.size()) + " logits");
  }
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const Score score{.nll = -log_prob(logits, token), .first_choice = best == token};
  if (!std::isfinite(score.nll))
    return Status(Code::internal, "the model gave token " + std::to_string(token) + " no finite log-probability");
  return score;
}

}  // namespace bough::eval
