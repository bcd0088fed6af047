// Checks of a model file's tokenizer entries.
#pragma once

#include <cstdint>

#include "bough/status.h"
#include "model/gguf.h"

namespace bough {

// The number of tokens. Errors: corrupt, naming the key, when an entry has the wrong type or length, a token occurs twice or holds
// a NUL, or the id of a special token is not below the number of tokens: the tokenizer library asserts or reads astray on some of
// these. unsupported: a file without a vocabulary.
Result<int64_t> check_vocabulary(const GgufFile& file);

}  // namespace bough
