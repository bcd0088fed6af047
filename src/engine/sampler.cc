#include "engine/sampler.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <string>

#include "base/check.h"
#include "steps/adjust.h"
#include "text/stop_strings.h"

namespace bough {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr float kMaxBias = 1000;
constexpr size_t kMaxBiases = 65536;
constexpr int64_t kMaxPenaltyTokens = 65536;
constexpr int kMaxLogprobs = 100;

std::string shown(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

Status check_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return {Code::invalid_argument, std::string(name) + " is " + shown(value) + ", it must be " + shown(low) + " to " + shown(high)};
}

Status check_bias(const std::vector<LogitBias>& biases, int64_t vocab) {
  if (biases.size() > kMaxBiases) {
    return {Code::invalid_argument,
            std::to_string(biases.size()) + " logit biases are more than the " + std::to_string(kMaxBiases) + " of one answer"};
  }
  for (const LogitBias& bias : biases) {
    if (bias.token < 0 || bias.token >= vocab) {
      return {Code::invalid_argument, "the logit bias of token " + std::to_string(bias.token) + " is outside the vocabulary, ids 0 to " +
                                          std::to_string(vocab - 1)};
    }
    if (bias.bias == kForbidden) continue;
    const std::string name = "the logit bias of token " + std::to_string(bias.token);
    BOUGH_RETURN_IF_ERROR(check_range(name.c_str(), bias.bias, -kMaxBias, kMaxBias));
  }
  return {};
}

}  // namespace

Status check_options(const GenerateOptions& o, int64_t vocab) {
  if (o.max_tokens < 0) {
    return {Code::invalid_argument, "max_tokens is " + std::to_string(o.max_tokens) + ", it must not be negative"};
  }
  BOUGH_RETURN_IF_ERROR(check_range("temperature", o.temperature, 0, 100));
  if (o.top_k < 0) return {Code::invalid_argument, "top_k is " + std::to_string(o.top_k) + ", it must not be negative"};
  if (!(o.top_p > 0 && o.top_p <= 1)) {
    return {Code::invalid_argument, "top_p is " + shown(o.top_p) + ", it must be above 0 and at most 1"};
  }
  BOUGH_RETURN_IF_ERROR(check_range("min_p", o.min_p, 0, 1));
  BOUGH_RETURN_IF_ERROR(check_range("repeat_penalty", o.repeat_penalty, 0.1F, 10));
  BOUGH_RETURN_IF_ERROR(check_range("frequency_penalty", o.frequency_penalty, -100, 100));
  BOUGH_RETURN_IF_ERROR(check_range("presence_penalty", o.presence_penalty, -100, 100));
  BOUGH_RETURN_IF_ERROR(check_range("penalty_tokens", static_cast<double>(o.penalty_tokens), 0, kMaxPenaltyTokens));
  BOUGH_RETURN_IF_ERROR(check_bias(o.logit_bias, vocab));
  BOUGH_RETURN_IF_ERROR(check_stop_strings(o.stop));
  if (o.logprobs) BOUGH_RETURN_IF_ERROR(check_range("logprobs", *o.logprobs, 0, kMaxLogprobs));
  if (!o.grammar.empty() && !o.json_schema.empty()) {
    return {Code::invalid_argument, "an answer follows a grammar or a JSON schema, not both"};
  }
  return {};
}

Sampler::Sampler(const Tokenizer& tokenizer, const GenerateOptions& options)
    : tokenizer_(tokenizer), options_(options), bodies_(model_bodies().front()) {}

Result<std::unique_ptr<Sampler>> Sampler::open(const Tokenizer& tokenizer, const GenerateOptions& options) {
  std::unique_ptr<Sampler> sampler(new Sampler(tokenizer, options));
  if (!options.grammar.empty()) {
    BOUGH_ASSIGN_OR_RETURN(sampler->grammar_, Grammar::open(tokenizer, GrammarKind::gbnf, options.grammar));
  } else if (!options.json_schema.empty()) {
    BOUGH_ASSIGN_OR_RETURN(sampler->grammar_, Grammar::open(tokenizer, GrammarKind::json_schema, options.json_schema));
  }
  return sampler;
}

Result<TokenId> Sampler::next(std::span<const float> logits, std::span<const TokenId> history) {
  const auto looked_at = std::min(history.size(), static_cast<size_t>(options_.penalty_tokens));
  AdjustArgs change{.logits = {},
                    .history = history.last(looked_at),
                    .repeat_penalty = options_.repeat_penalty,
                    .frequency_penalty = options_.frequency_penalty,
                    .presence_penalty = options_.presence_penalty,
                    .bias = options_.logit_bias};
  if (adjusts(change) || grammar_) {
    changed_.assign(logits.begin(), logits.end());
    change.logits = changed_;
    adjust(change);
    if (grammar_) BOUGH_RETURN_IF_ERROR(restrict_to_grammar());
    logits = changed_;
  }
  const SampleArgs args{.logits = logits.data(),
                        .vocab = static_cast<int64_t>(logits.size()),
                        .temperature = options_.temperature,
                        .top_k = options_.top_k,
                        .top_p = options_.top_p,
                        .min_p = options_.min_p,
                        .seed = options_.seed,
                        .step = step_};
  BOUGH_ASSIGN_OR_RETURN(const TokenId token, bodies_.sample(args));
  ++step_;
  if (grammar_) grammar_->accept(token);
  return token;
}

// Asks about the best tokens first: most often they hold as many allowed ones as the choice looks at.
Status Sampler::restrict_to_grammar() {
  BOUGH_RETURN_IF_ERROR(check_logits(changed_));
  const auto vocab = static_cast<int64_t>(changed_.size());
  const int64_t wanted = options_.temperature == 0 ? 1 : options_.top_k > 0 ? std::min(options_.top_k, vocab) : vocab;
  std::vector<TokenId> best, allowed;
  for (int64_t count = wanted < vocab ? std::min(vocab, std::max<int64_t>(64, 4 * wanted)) : vocab;; count = vocab) {
    bodies_.top({changed_, count, &best});
    BOUGH_RETURN_IF_ERROR(keep_allowed(best, allowed));
    if (count == vocab || static_cast<int64_t>(allowed.size()) >= wanted) break;
  }
  if (allowed.empty()) {
    return {Code::unsupported, "the grammar allows no token of the vocabulary after " + std::to_string(step_) + " tokens of the answer"};
  }
  std::vector<float> kept;
  kept.reserve(allowed.size());
  for (const TokenId token : allowed) kept.push_back(changed_[static_cast<size_t>(token)]);
  std::fill(changed_.begin(), changed_.end(), kForbidden);
  for (size_t i = 0; i < allowed.size(); ++i) changed_[static_cast<size_t>(allowed[i])] = kept[i];
  return {};
}

Status Sampler::keep_allowed(std::span<const TokenId> tokens, std::vector<TokenId>& allowed) {
  std::vector<uint8_t> may(tokens.size());
  BOUGH_RETURN_IF_ERROR(grammar_->allowed(tokens, may));
  allowed.clear();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (may[i] != 0 && changed_[static_cast<size_t>(tokens[i])] != kForbidden) allowed.push_back(tokens[i]);
  }
  return {};
}

Result<TokenLogprobs> Sampler::logprobs(std::span<const float> logits, TokenId chosen) const {
  const LogProbs of(logits);
  const auto entry = [&](TokenId token) -> Result<TokenLogprob> {
    BOUGH_ASSIGN_OR_RETURN(std::string text, tokenizer_.piece(token));
    return TokenLogprob{token, of[token], std::move(text)};
  };
  TokenLogprobs out;
  BOUGH_ASSIGN_OR_RETURN(out.chosen, entry(chosen));
  std::vector<TokenId> best;
  bodies_.top({logits, *options_.logprobs, &best});
  for (const TokenId token : best) {
    BOUGH_ASSIGN_OR_RETURN(TokenLogprob one, entry(token));
    out.top.push_back(std::move(one));
  }
  return out;
}

}  // namespace bough
