// Texts that the quality tasks read, as tokens: a file, or a filler of a few sentences repeated without end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"

namespace bough::eval {

struct Corpus {
  std::string name;             // as reports show it
  std::vector<TokenId> tokens;  // not empty
  bool endless = false;         // the tokens repeat

  // How many different offsets a piece of `count` tokens can start at; 0 when the text is too short.
  int64_t starts(int64_t count) const;
  // `count` tokens from `offset` on. Errors: invalid_argument (the text is too short; both numbers).
  Result<std::vector<TokenId>> piece(int64_t offset, int64_t count) const;
};

// The name under which the filler is asked for and reported.
inline constexpr std::string_view filler_name = "filler";

Result<Corpus> filler_corpus(const Engine& engine);
// Errors: invalid_argument when the text has no tokens.
Result<Corpus> text_corpus(const Engine& engine, std::string name, std::string_view text);

}  // namespace bough::eval
