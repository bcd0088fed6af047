// English-like text, the same on every machine.
#pragma once

#include <cstdint>
#include <string>

namespace bough::test {

// About `words` words in sentences and paragraphs.
std::string english_text(int64_t words, uint64_t seed = 1);

}  // namespace bough::test
