// What an answer is made by and what it is: options of Session::generate and its result.
//
// Every token is chosen in this order: logit bias; repeat, frequency and presence penalty; grammar; temperature; top-k; top-p; min-p;
// draw. With temperature 0 the best token that the grammar allows is taken and top-k, top-p and min-p change nothing. The draw
// depends on (seed, number of tokens of this answer) alone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bough/types.h"

namespace bough {

struct LogitBias {
  TokenId token = 0;
  float bias = 0;  // added to the token's logit: -1000 to 1000, or -infinity to forbid the token
};

struct GenerateOptions {
  int64_t max_tokens = 256;  // not negative
  float temperature = 0;     // 0 to 100; 0: greedy
  int64_t top_k = 0;         // keep the k likeliest tokens; 0: all
  float top_p = 1;           // above 0, at most 1: keep the fewest likeliest tokens whose probabilities add up to it
  float min_p = 0;           // 0 to 1: keep tokens at least this share as likely as the likeliest

  // Penalties of the tokens among the last `penalty_tokens` of the session, its prompt included. A positive logit is divided by
  // repeat_penalty, a negative one multiplied; then presence_penalty, and frequency_penalty times the number of occurrences, are taken off.
  float repeat_penalty = 1;     // 0.1 to 10; 1: none
  float frequency_penalty = 0;  // -100 to 100
  float presence_penalty = 0;   // -100 to 100
  int64_t penalty_tokens = 64;  // 0 to 65,536

  std::vector<LogitBias> logit_bias;  // at most 65,536; those of one token add up
  uint64_t seed = 0;

  // The answer ends before the first of these strings: at most 16 of 1 to 1,024 bytes of UTF-8.
  std::vector<std::string> stop;
  // What the answer must match: a grammar in GBNF whose start rule is `root`, or a JSON schema; at most one of them, of at most 64 KiB
  // and 64 levels deep. Both are carried out in a child process with bounded memory and time. Control tokens never match.
  std::string grammar;
  std::string json_schema;

  std::optional<int> logprobs;  // 0 to 100: keep each token's log-probability and those of so many likeliest tokens

  std::function<bool(std::string_view)> on_text;  // complete UTF-8 as it appears; false stops the answer
};

struct TokenLogprob {
  TokenId token = 0;
  double logprob = 0;  // natural logarithm of the model's own probability, before anything above changes it
  std::string text;    // the token's bytes, perhaps a part of a character; empty for control tokens
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // likeliest first
};

enum class Finish : uint8_t { end_of_text, max_tokens, cancelled, stop };

struct Generation {
  std::vector<TokenId> tokens;          // without the end-of-text token; with those of a stop string
  std::string text;                     // without the stop string and what follows it
  std::vector<TokenLogprobs> logprobs;  // [tokens] when asked for, otherwise empty
  Finish finish = Finish::max_tokens;
  double seconds = 0;
};

}  // namespace bough
