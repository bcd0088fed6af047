// Sampler: the tokens of one answer, one after the other.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "bough/generate.h"
#include "bough/status.h"
#include "steps/model_bodies.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace bough {

// Every range that generate.h names. Errors: invalid_argument (the option, its value and the limit).
Status check_options(const GenerateOptions& options, int64_t vocab);

class Sampler {
 public:
  // REQUIRES: check_options. The tokenizer and the options must outlive this. Errors: those of Grammar::open.
  static Result<std::unique_ptr<Sampler>> open(const Tokenizer& tokenizer, const GenerateOptions& options);

  // The next token. logits: [vocab]; history: the session's tokens, the prompt's among them.
  // Errors: those of the sample step and of Grammar; unsupported (the grammar allows no token here).
  Result<TokenId> next(std::span<const float> logits, std::span<const TokenId> history);

  // What the options ask for, of the unchanged logits.
  Result<TokenLogprobs> logprobs(std::span<const float> logits, TokenId chosen) const;

 private:
  Sampler(const Tokenizer& tokenizer, const GenerateOptions& options);
  Status restrict_to_grammar();
  Status keep_allowed(std::span<const TokenId> tokens, std::vector<TokenId>& allowed);

  const Tokenizer& tokenizer_;
  const GenerateOptions& options_;
  const ModelBodies& bodies_;
  std::unique_ptr<Grammar> grammar_;
  std::vector<float> changed_;  // [vocab] logits after bias, penalties and grammar
  uint64_t step_ = 0;
};

}  // namespace bough
