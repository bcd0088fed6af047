// UTF-8: the strict form of the Unicode standard (no overlong sequences, no surrogates, nothing above U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bough {

enum class Utf8State : uint8_t {
  complete,  // a whole character
  cut,       // the text ends inside what may still become a character
  invalid,   // no character can start so
};

struct Utf8Char {
  Utf8State state = Utf8State::invalid;
  size_t bytes = 1;         // of the character, or of the maximal broken part that one U+FFFD stands for; at least 1
  uint32_t code_point = 0;  // 0 unless complete
};

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// The first character of `text`. REQUIRES: text is not empty.
Utf8Char first_char(std::string_view text);

bool is_utf8(std::string_view text);

// Every maximal broken part becomes one U+FFFD, also one that the end of the text cuts.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace bough
