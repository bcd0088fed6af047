// Text files: a text and its tokens, beside the session that is about it, so that nobody tokenizes it again. docs/sessions.md describes
// the format.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "bough/types.h"

namespace bough {

// What tokens depend on besides the text.
struct TokenizerId {
  uint64_t hash = 0;  // Fingerprint::tokenizer
  bool add_bos = false;
};

// The tokens of `text` where the file at `path` holds just this text, byte by byte, for this tokenizer. None where it holds another one, is
// damaged or is not there. Errors: io_error, out_of_memory.
Result<std::optional<std::vector<TokenId>>> read_text_file(FileSystem& files, const std::string& path, std::string_view text,
                                                           const TokenizerId& tokenizer);

// Puts a file in the place of the one at `path`, at once or not at all. Errors: io_error, out_of_memory.
Status write_text_file(FileSystem& files, const std::string& path, std::string_view text, std::span<const TokenId> tokens,
                       const TokenizerId& tokenizer);

}  // namespace bough
