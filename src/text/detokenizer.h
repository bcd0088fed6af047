// Tokens to text as they come: what is printable now, the rest later.
#pragma once

#include <string>

#include "bough/status.h"
#include "bough/types.h"
#include "text/tokenizer.h"

namespace bough {

// The concatenation of all pushed and flushed text is UTF-8 and equals replace_invalid_utf8 of the tokens' pieces in a row.
class Detokenizer {
 public:
  // `special`: control tokens appear as their text. The Tokenizer must outlive this.
  explicit Detokenizer(const Tokenizer& tokenizer, bool special = false) : tokenizer_(&tokenizer), special_(special) {}

  // Text that this token completes, perhaps empty; at most 3 bytes of a character wait for the next token.
  // Errors: invalid_argument (a token outside the vocabulary; nothing changes).
  Result<std::string> push(TokenId token);

  // What still waits, as one U+FFFD, or nothing.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  std::string waiting_;  // the start of a character
};

}  // namespace bough
