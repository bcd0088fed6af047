// The passkey task: five digits hidden in a long text, asked for at its end. Raw prompt, no chat template.
//
// A prompt is introduction + haystack with the needle after a full stop + question; the answer's digits are fed as decode rows. A trial
// is exact when each of them was the model's first choice. Where the vocabulary spells ' K' with a blank before the first digit, the
// blank belongs to the question: whether a model would have begun with another word is not what the task asks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/report.h"

namespace bough::eval {

struct PasskeyTrial {
  int trial = 0;  // 0 .. trials - 1, from the shallowest needle to the deepest
  int trials = 0;
  int64_t length = 0;  // tokens of the whole prompt
  uint64_t seed = 0;
  bool one_haystack = false;  // every trial starts at the corpus' first token
};

struct PasskeyParts {
  std::vector<TokenId> introduction;
  std::vector<TokenId> needle;
  std::vector<TokenId> question;
  std::vector<TokenId> answer;  // the tokens that hold the digits
};

struct PasskeyPrompt {
  std::vector<TokenId> text;  // introduction and haystack with the needle
  std::vector<TokenId> question;
  std::vector<TokenId> answer;
  int64_t needle = 0;  // its first token in `text`
  int64_t needle_tokens = 0;
};

// Five digits, the first of them not 0; a function of seed and trial only.
std::string passkey_of(uint64_t seed, int trial);

Result<PasskeyParts> passkey_parts(const Engine& engine, const std::string& key);

// Puts a prompt together: exactly trial.length tokens with its question. The needle goes after the full stop nearest to its depth
// (trial + 0.5) / trials, exactly there when the haystack has none. Errors: invalid_argument (prompt too short, corpus too short).
Result<PasskeyPrompt> assemble_passkey(const PasskeyParts& parts, const Corpus& corpus, const PasskeyTrial& trial,
                                       const std::function<bool(TokenId)>& ends_sentence);

// 1 for the first passage of which, or which of the needle, holds at least half; 0 if there is none.
int source_rank(std::span<const Source> sources, const PasskeyPrompt& prompt);

// Tokens that both start with, rounded down to a multiple of 64: rolling back to there and reading on equals a fresh read.
int64_t shared_prefix(std::span<const TokenId> a, std::span<const TokenId> b);

struct PasskeyResult {
  int trial = 0;
  std::string key;
  int64_t needle = 0;
  int right = 0;  // answer tokens that were the first choice
  int answer_tokens = 0;
  double nll = 0;       // nats, summed over the answer tokens
  int source_rank = 0;  // of the first passage that is the needle's among those that the answer drew on; 0: not among the first ten
};

struct PasskeyOptions {
  int64_t length = 0;
  int trials = 10;
  uint64_t seed = 0;
  bool one_haystack = false;
  bool share_prefixes = true;                           // false: every trial reads its whole prompt
  std::function<bool(const Progress&)> progress;        // over all tokens that the cell reads; false cancels
  std::function<void(const PasskeyResult&)> on_result;  // after each trial
};

// Runs the trials from the deepest needle to the shallowest. Fills task, length, text, trials, the figures, seed and one_haystack.
Result<Cell> run_passkey(Engine& engine, const Corpus& corpus, const PasskeyOptions& options);

}  // namespace bough::eval
