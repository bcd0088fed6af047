#include "text/offsets.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace bough {

Result<std::vector<int64_t>> token_offsets(const Tokenizer& tokenizer, std::string_view text, std::span<const TokenId> tokens) {
  std::vector<int64_t> offsets;
  offsets.reserve(tokens.size() + 1);
  std::string spelled;
  spelled.reserve(text.size() + 64);
  for (const TokenId token : tokens) {
    offsets.push_back(static_cast<int64_t>(spelled.size()));
    BOUGH_ASSIGN_OR_RETURN(const std::string piece, tokenizer.piece(token));
    spelled += piece;
  }
  offsets.push_back(static_cast<int64_t>(spelled.size()));
  const bool added_blank = spelled.size() == text.size() + 1 && spelled.front() == ' ';
  const std::string_view own = std::string_view{spelled}.substr(added_blank ? 1 : 0);
  if (own != text) {
    const auto same = std::mismatch(own.begin(), own.end(), text.begin(), text.end()).first - own.begin();
    return Status(Code::unsupported, "the tokens spell " + std::to_string(own.size()) + " bytes, the text has " +
                                         std::to_string(text.size()) + ", and they differ from byte " + std::to_string(same) +
                                         " on: the vocabulary rewrites texts, or the tokens are of another text");
  }
  if (added_blank) {
    for (int64_t& offset : offsets) offset = std::max<int64_t>(0, offset - 1);
  }
  return offsets;
}

}  // namespace bough
