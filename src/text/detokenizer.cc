#include "text/detokenizer.h"

#include <string_view>
#include <utility>

#include "base/check.h"
#include "text/utf8.h"

namespace bough {

Result<std::string> Detokenizer::push(TokenId token) {
  BOUGH_ASSIGN_OR_RETURN(const std::string piece, tokenizer_->piece(token, special_));
  const std::string bytes = std::exchange(waiting_, {}) + piece;
  std::string_view rest = bytes;
  std::string out;
  while (!rest.empty()) {
    const Utf8Char c = first_char(rest);
    if (c.state == Utf8State::cut) {
      waiting_ = rest;
      break;
    }
    out.append(c.state == Utf8State::complete ? rest.substr(0, c.bytes) : kReplacement);
    rest.remove_prefix(c.bytes);
  }
  return out;
}

std::string Detokenizer::flush() {
  if (waiting_.empty()) return {};
  waiting_.clear();
  return std::string(kReplacement);
}

}  // namespace bough
