#include "steps/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

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

}  // namespace

Status check_sampling(const SampleArgs& a) {
  if (a.logits == nullptr || a.vocab < 1 || a.vocab > std::numeric_limits<TokenId>::max()) {
    return {Code::internal, "there are " + std::to_string(a.vocab) + " logits to sample from, must be 1 to 2147483647"};
  }
  if (!std::isfinite(a.temperature) || a.temperature < 0) {
    return {Code::invalid_argument, "temperature is " + std::to_string(a.temperature) + ", must be finite and at least 0"};
  }
  if (a.top_k < 0) return {Code::invalid_argument, "top_k is " + std::to_string(a.top_k) + ", must be at least 0 (0: all tokens)"};
  if (!(a.top_p > 0 && a.top_p <= 1)) {
    return {Code::invalid_argument, "top_p is " + std::to_string(a.top_p) + ", must be above 0 and at most 1"};
  }
  if (!(a.min_p >= 0 && a.min_p <= 1)) return {Code::invalid_argument, "min_p is " + std::to_string(a.min_p) + ", must be 0 to 1"};
  return {};
}

Status check_logits(std::span<const float> logits) {
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return {Code::internal, "logit " + std::to_string(i) + " is " + std::to_string(logits[i]) + ", must be finite or -inf"};
    }
    any = any || !std::isinf(logits[i]);
  }
  if (!any) return {Code::internal, "all " + std::to_string(logits.size()) + " logits are -inf"};
  return {};
}

// The step is spread before it meets the seed, so that (seed + 1, step) is not (seed, step + 1).
double uniform_draw(uint64_t seed, uint64_t step) {
  return static_cast<double>(splitmix64(splitmix64(seed) ^ (step * kGolden)) >> 11) * 0x1p-53;
}

LogProbs::LogProbs(std::span<const float> logits) : logits_(logits) {
  if (logits.empty()) return;
  top_ = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - top_);
  log_total_ = std::log(total);
}

double LogProbs::operator[](TokenId token) const {
  if (token < 0 || static_cast<size_t>(token) >= logits_.size()) return std::numeric_limits<double>::quiet_NaN();
  return logits_[static_cast<size_t>(token)] - top_ - log_total_;
}

double log_prob(std::span<const float> logits, TokenId token) { return LogProbs(logits)[token]; }

}  // namespace bough
