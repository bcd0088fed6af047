#include "text/offsets.h"

#include <string>

#include "base/check.h"

namespace bough {

Result<std::vector<int64_t>> token_offsets(const Tokenizer& tokenizer, std::string_view text, std::span<const TokenId> tokens) {
  std::vector<int64_t> offsets;
  offsets.reserve(tokens.size() + 1);
  size_t at = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    offsets.push_back(static_cast<int64_t>(at));
    BOUGH_ASSIGN_OR_RETURN(const std::string piece, tokenizer.piece(tokens[i]));
    const std::string_view rest = text.substr(at);
    if (rest.starts_with(piece)) {
      at += piece.size();
    } else if (at == 0 && piece.starts_with(' ') && rest.starts_with(std::string_view(piece).substr(1))) {
      at += piece.size() - 1;
    } else {
      return Status(Code::unsupported, "token " + std::to_string(i) + " does not spell the text at byte " + std::to_string(at) +
                                           ": the vocabulary rewrites texts, or the tokens are of another text");
    }
  }
  if (at != text.size()) {
    return Status(Code::invalid_argument,
                  "the tokens spell " + std::to_string(at) + " bytes, and the text has " + std::to_string(text.size()));
  }
  offsets.push_back(static_cast<int64_t>(at));
  return offsets;
}

}  // namespace bough
