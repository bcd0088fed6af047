#include "steps/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/check.h"

namespace bough {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;

// splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that passes for random on consecutive inputs.
uint64_t splitmix64(uint64_t x) {
  x += kGolden;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// In [0, 1), 53 bits. The step is spread before it meets the seed, so that (seed + 1, step) is not (seed, step + 1).
double uniform(uint64_t seed, uint64_t step) {
  return static_cast<double>(splitmix64(splitmix64(seed) ^ (step * kGolden)) >> 11) * 0x1p-53;
}

Result<TokenId> best_token(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return Status(Code::internal, "logit " + std::to_string(i) + " is " + std::to_string(logits[i]) + ", must be finite or -inf");
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (std::isinf(logits[best])) return Status(Code::internal, "all " + std::to_string(logits.size()) + " logits are -inf");
  return static_cast<TokenId>(best);
}

}  // namespace

Result<TokenId> sample(const SampleArgs& args) {
  if (args.logits == nullptr || args.vocab < 1 || args.vocab > std::numeric_limits<TokenId>::max()) {
    return Status(Code::internal, "there are " + std::to_string(args.vocab) + " logits to sample from, must be 1 to 2147483647");
  }
  if (!std::isfinite(args.temperature) || args.temperature < 0) {
    return Status(Code::invalid_argument, "temperature is " + std::to_string(args.temperature) + ", must be finite and at least 0");
  }
  const std::span<const float> logits(args.logits, static_cast<size_t>(args.vocab));
  BOUGH_ASSIGN_OR_RETURN(const TokenId best, best_token(logits));
  if (args.temperature == 0) return best;

  const double top = logits[static_cast<size_t>(best)];
  const double temperature = args.temperature;
  auto weight = [&](float logit) { return std::exp((logit - top) / temperature); };
  double total = 0;
  for (float logit : logits) total += weight(logit);
  const double target = uniform(args.seed, args.step) * total;
  double below = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    below += weight(logits[i]);
    if (below > target) return static_cast<TokenId>(i);
  }
  return best;  // u * total may round up to total
}

double log_prob(std::span<const float> logits, TokenId token) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) return std::numeric_limits<double>::quiet_NaN();
  const double top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (float logit : logits) total += std::exp(logit - top);
  return logits[static_cast<size_t>(token)] - top - std::log(total);
}

}  // namespace bough
