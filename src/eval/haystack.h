// Long texts with sentences hidden in them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/prompt.h"

namespace bough::eval {

// Whether a token's text ends in a full stop; remembered for each token. The engine must outlive it.
std::function<bool(TokenId)> full_stops(const Engine& engine);

struct Needle {
  double depth = 0;  // 0..1 of the haystack
  std::vector<TokenId> tokens;
};

struct Woven {
  std::vector<TokenId> tokens;
  std::vector<int64_t> places;  // of each needle's first token, in the order in which the needles were given
};

// Puts each needle after the full stop nearest to its depth, exactly there when the haystack has none. Needles of one place stand in
// the order of their depths.
Woven weave(std::span<const TokenId> haystack, std::span<const Needle> needles, const std::function<bool(TokenId)>& ends_sentence);

// The haystack of a trial: from token (trial x 9973) mod 300,000 on, wrapped into what the corpus has, or from its first token. Errors:
// those of Corpus::piece.
Result<std::vector<TokenId>> trial_haystack(const Corpus& corpus, const TrialSet& set, int trial, int64_t tokens);

// Tokens of haystack that make a prompt of `length` tokens, when its text is the introduction alone so far: what introduction, question,
// needles and the room for the answer leave. Errors: invalid_argument (none is left; the least length).
Result<int64_t> haystack_room(const Prompt& prompt, int64_t needle_tokens, int64_t length);

// Sets the answer's tokens, those of ' ' + `answer`. Where the vocabulary spells a blank as a token of its own, that goes to the
// question: whether a model would have begun with another word is not what the tasks ask.
Status set_answer(const Engine& engine, std::string_view answer, Prompt& prompt);

inline void append_to(std::vector<TokenId>& out, std::span<const TokenId> more) { out.insert(out.end(), more.begin(), more.end()); }

}  // namespace bough::eval
