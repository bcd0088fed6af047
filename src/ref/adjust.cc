#include "steps/adjust.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace bough {
namespace {

float clamped(double x, float before) {
  constexpr double most = std::numeric_limits<float>::max();
  return std::isfinite(before) && !std::isnan(x) ? static_cast<float>(std::clamp(x, -most, most)) : before;
}

}  // namespace

void adjust(const AdjustArgs& a) {
  for (const LogitBias& bias : a.bias) {
    float& logit = a.logits[static_cast<size_t>(bias.token)];
    logit = std::isinf(bias.bias) && !std::isnan(logit) ? bias.bias : clamped(static_cast<double>(logit) + bias.bias, logit);
  }
  if (a.repeat_penalty == 1 && a.frequency_penalty == 0 && a.presence_penalty == 0) return;
  std::unordered_map<TokenId, int64_t> counts;
  for (const TokenId token : a.history) ++counts[token];
  for (const auto& [token, count] : counts) {
    float& logit = a.logits[static_cast<size_t>(token)];
    const double repeat = a.repeat_penalty;
    const double scaled = logit > 0 ? logit / repeat : logit * repeat;
    logit = clamped(scaled - a.presence_penalty - static_cast<double>(count) * a.frequency_penalty, logit);
  }
}

}  // namespace bough
