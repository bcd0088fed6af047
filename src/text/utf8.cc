#include "text/utf8.h"

namespace bough {
namespace {

// How a lead byte goes on: the number of continuation bytes, and the range of the first of them, which excludes overlong forms,
// surrogates and code points above U+10FFFF.
struct Lead {
  int more = -1;  // -1: not a lead byte
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  uint32_t bits = 0;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {0, 0x80, 0xBF, byte};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {1, 0x80, 0xBF, byte & 0x1Fu};
  if (byte < 0xF0) {
    const uint8_t low = byte == 0xE0 ? 0xA0 : 0x80;
    const uint8_t high = byte == 0xED ? 0x9F : 0xBF;
    return {2, low, high, byte & 0x0Fu};
  }
  if (byte < 0xF5) {
    const uint8_t low = byte == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = byte == 0xF4 ? 0x8F : 0xBF;
    return {3, low, high, byte & 0x07u};
  }
  return {};
}

// Bytes of `text` up to the first broken part.
size_t valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Char c = first_char(text.substr(at));
    if (c.state != Utf8State::complete) break;
    at += c.bytes;
  }
  return at;
}

}  // namespace

Utf8Char first_char(std::string_view text) {
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.more < 0) return {};
  uint32_t code_point = lead.bits;
  for (int i = 1; i <= lead.more; ++i) {
    const size_t at = static_cast<size_t>(i);
    if (at >= text.size()) return {Utf8State::cut, at, 0};
    const auto byte = static_cast<uint8_t>(text[at]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Utf8State::invalid, at, 0};
    code_point = code_point << 6 | (byte & 0x3Fu);
  }
  return {Utf8State::complete, static_cast<size_t>(lead.more) + 1, code_point};
}

bool is_utf8(std::string_view text) { return valid_prefix(text) == text.size(); }

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t good = valid_prefix(text);
    out.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) return out;
    out.append(kReplacement);
    text.remove_prefix(first_char(text).bytes);
  }
}

}  // namespace bough
