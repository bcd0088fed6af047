#include "text/text_cuts.h"

#include <cstdint>

#include "text/utf8.h"

namespace bough {
namespace {

bool is_latin(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_continuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

// Letters, marks, digits and ideographs; no blank, no line separator and no format character is among them.
bool is_wide_word(uint32_t c) {
  return (c >= 0x0370 && c <= 0x05FF) || (c >= 0x0620 && c <= 0x06D3) || (c >= 0x3041 && c <= 0x30FF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xAC00 && c <= 0xD7A3);
}
bool is_wide_sign(uint32_t c) {
  return c == 0x3001 || c == 0x3002 || c == 0xFF01 || c == 0xFF0C || c == 0xFF1F || c == 0x201D || c == 0x2019 || c == 0x2026;
}

uint32_t code_point_at(std::string_view text, size_t at) { return first_char(text.substr(at)).code_point; }

bool starts_word(std::string_view text, size_t at) {
  return is_latin(text[at]) || is_digit(text[at]) || is_wide_word(code_point_at(text, at));
}

bool ends_visibly(std::string_view text, size_t end) {
  const char last = text[end - 1];
  if (static_cast<uint8_t>(last) < 0x80) return last > ' ' && last < 0x7F;
  size_t start = end - 1;
  while (start > 0 && is_continuation(text[start])) --start;
  const uint32_t c = code_point_at(text, start);
  return is_wide_word(c) || is_wide_sign(c);
}

bool is_safe(std::string_view text, size_t at, const CutRules& rules) {
  const char before = text[at - 1];
  if (rules.at_blank && text[at] == ' ' && is_latin(before)) return at + 1 < text.size() && is_latin(text[at + 1]);
  if (rules.at_line && before == '\n' && at >= 2) return starts_word(text, at) && ends_visibly(text, at - 1);
  return false;
}

}  // namespace

size_t first_piece(std::string_view text, size_t limit, const CutRules& rules) {
  if (text.size() <= limit) return text.size();
  for (size_t at = limit; at > 0; --at) {
    if (is_safe(text, at, rules)) return at;
  }
  size_t at = limit;
  while (is_continuation(text[at])) --at;
  return at;
}

void exclude_special(CutRules& rules, std::string_view special, bool strips) {
  if (strips) rules = {};
  for (size_t i = 0; i + 1 < special.size(); ++i) {
    if (is_latin(special[i]) && special[i + 1] == ' ') rules.at_blank = false;
    if (special[i] == '\n' && starts_word(special, i + 1)) rules.at_line = false;
  }
}

}  // namespace bough
