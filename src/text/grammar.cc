#include "text/grammar.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "text/grammar_child.h"
#include "text/utf8.h"

namespace bough {
namespace {

// The end of a literal or range that starts at `at`, after its closing mark.
size_t skip_quoted(std::string_view text, size_t at, char close) {
  ++at;
  while (at < text.size() && text[at] != close) at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

const char* name_of(GrammarKind kind) { return kind == GrammarKind::gbnf ? "the grammar" : "the JSON schema"; }

Status check_text(GrammarKind kind, const std::string& text) {
  const std::string name = name_of(kind);
  if (text.empty()) return {Code::invalid_argument, name + " is empty"};
  if (text.size() > kMaxGrammarBytes) {
    return {Code::invalid_argument, name + " has " + std::to_string(text.size()) + " bytes, more than " + std::to_string(kMaxGrammarBytes)};
  }
  if (!is_utf8(text)) return {Code::invalid_argument, name + " is not UTF-8"};
  if (const size_t at = text.find('\0'); at != std::string::npos) {
    return {Code::invalid_argument, name + " holds a NUL at byte " + std::to_string(at)};
  }
  const int depth = kind == GrammarKind::gbnf ? grammar_depth(text) : json_depth(text);
  if (depth > kMaxGrammarDepth) {
    return {Code::invalid_argument, name + " nests " + std::to_string(depth) + " deep, more than " + std::to_string(kMaxGrammarDepth)};
  }
  return {};
}

}  // namespace

int grammar_depth(std::string_view text) {
  int open = 0;
  int most = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '[') {
      at = skip_quoted(text, at, c == '"' ? '"' : ']');
      continue;
    }
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
      continue;
    }
    if (c == '(') most = std::max(most, ++open);
    if (c == ')') open = std::max(0, open - 1);
    ++at;
  }
  return most;
}

int json_depth(std::string_view text) {
  int open = 0;
  int most = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      at = skip_quoted(text, at, '"');
      continue;
    }
    if (c == '{' || c == '[') most = std::max(most, ++open);
    if (c == '}' || c == ']') open = std::max(0, open - 1);
    ++at;
  }
  return most;
}

Result<std::unique_ptr<Grammar>> Grammar::open(const Tokenizer& tokenizer, GrammarKind kind, const std::string& text) {
  BOUGH_RETURN_IF_ERROR(check_text(kind, text));
  std::unique_ptr<Grammar> grammar(new Grammar(name_of(kind)));
  GrammarChild inside(tokenizer);  // lives on in the child alone
  const Result<std::string> started =
      grammar->child_.start([&] { return inside.open(kind, text); }, [&](std::string_view request) { return inside.answer(request); });
  if (!started.ok()) return started.status();
  return grammar;
}

Status Grammar::allowed(std::span<const TokenId> tokens, std::span<uint8_t> out) {
  if (tokens.empty()) return {};
  const auto count = static_cast<uint64_t>(accepted_.size());
  std::string request(sizeof count + accepted_.size() * sizeof(TokenId) + tokens.size_bytes(), '\0');
  char* at = request.data();
  std::memcpy(at, &count, sizeof count);
  at += sizeof count;
  std::copy_n(reinterpret_cast<const char*>(accepted_.data()), accepted_.size() * sizeof(TokenId), at);
  at += accepted_.size() * sizeof(TokenId);
  std::copy_n(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes(), at);
  accepted_.clear();
  BOUGH_ASSIGN_OR_RETURN(const std::string reply, child_.ask(request));
  if (reply.size() != out.size()) return {Code::internal, "a grammar answered for " + std::to_string(reply.size()) + " tokens"};
  std::copy(reply.begin(), reply.end(), out.begin());
  return {};
}

}  // namespace bough
