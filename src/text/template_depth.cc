#include "text/template_depth.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace bough {
namespace {

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

// The tag's first word: what a statement is.
std::string_view keyword(std::string_view tag) {
  size_t start = 0;
  while (start < tag.size() && !is_word(tag[start])) ++start;
  size_t end = start;
  while (end < tag.size() && is_word(tag[end])) ++end;
  return tag.substr(start, end - start);
}

// +1 for a statement that opens a block, -1 for one that closes it.
int block_step(std::string_view word) {
  constexpr std::array<std::string_view, 6> opening = {"if", "for", "macro", "call", "filter", "generation"};
  if (std::find(opening.begin(), opening.end(), word) != opening.end()) return 1;
  return word.starts_with("end") && word != "endset" ? -1 : 0;
}

struct Tag {
  size_t bytes = 0;  // up to and with the closing mark, or to the end of the source
  int depth = 0;     // most brackets open at once
};

// The end of a quoted string that starts at `at`.
size_t skip_string(std::string_view text, size_t at) {
  const char quote = text[at++];
  while (at < text.size() && text[at] != quote) at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

// `text` starts after "{{" or "{%"; `close` is '}' or '%'.
Tag scan_tag(std::string_view text, char close) {
  Tag tag;
  int open = 0;
  size_t at = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\'' || c == '"') {
      at = skip_string(text, at);
      continue;
    }
    const bool ends = c == close && at + 1 < text.size() && text[at + 1] == '}';
    if (ends && (close == '%' || open == 0)) {
      tag.bytes = at + 2;
      return tag;
    }
    if (c == '(' || c == '[' || c == '{') tag.depth = std::max(tag.depth, ++open);
    if (c == ')' || c == ']' || c == '}') open = std::max(0, open - 1);
    ++at;
  }
  tag.bytes = text.size();
  return tag;
}

}  // namespace

int template_depth(std::string_view source) {
  int blocks = 0;
  int most = 0;
  size_t at = 0;
  while ((at = source.find('{', at)) != std::string_view::npos) {
    const char kind = at + 1 < source.size() ? source[at + 1] : '\0';
    if (kind == '#') {
      const size_t end = source.find("#}", at + 2);
      if (end == std::string_view::npos) break;
      at = end + 2;
    } else if (kind == '{' || kind == '%') {
      const std::string_view rest = source.substr(at + 2);
      const Tag tag = scan_tag(rest, kind == '{' ? '}' : '%');
      if (kind == '%') blocks = std::max(0, blocks + block_step(keyword(rest.substr(0, tag.bytes))));
      most = std::max(most, blocks + tag.depth);
      at += 2 + tag.bytes;
    } else {
      ++at;
    }
  }
  return most;
}

}  // namespace bough
