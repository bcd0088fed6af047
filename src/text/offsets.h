// Where tokens stand in the text that they were made from.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "bough/status.h"
#include "text/tokenizer.h"

namespace bough {

// Byte offsets in `text`, [tokens + 1]: token i spells the bytes from offsets[i] to offsets[i + 1]. Control tokens spell none; nor does
// the blank that some vocabularies put before a text. A token may begin inside a UTF-8 character. Every piece is compared with the
// text. Errors: invalid_argument (a token outside the vocabulary), unsupported (a vocabulary that does not spell texts byte by byte, or
// tokens of another text).
Result<std::vector<int64_t>> token_offsets(const Tokenizer& tokenizer, std::string_view text, std::span<const TokenId> tokens);

}  // namespace bough
