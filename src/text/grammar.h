// Grammars: which tokens an answer may go on with.
//
// A grammar comes with a request, so it is not trusted. libllama parses and follows it, and with some grammars takes exponential
// time, grows without end, or ends the process; so all of it runs in a child process (child.h) that lives as long as the answer:
// 256 MiB, and 5 seconds a question. Text is at most 64 KiB and nests at most 64 deep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bough/status.h"
#include "bough/types.h"
#include "text/child.h"
#include "text/tokenizer.h"

namespace bough {

inline constexpr size_t kMaxGrammarBytes = size_t{64} << 10;
inline constexpr int kMaxGrammarDepth = 64;

// Most brackets open at once, outside of literals, ranges and comments of a GBNF text; of a JSON text, outside of strings.
int grammar_depth(std::string_view gbnf);
int json_depth(std::string_view json);

enum class GrammarKind : uint8_t { gbnf, json_schema };

class Grammar {
 public:
  // Errors: invalid_argument (empty, too long, too deep, not UTF-8, NUL; what the library finds wrong; a schema that would only be
  // kept in part), unsupported (beyond the bounds of the child process).
  static Result<std::unique_ptr<Grammar>> open(const Tokenizer& tokenizer, GrammarKind kind, const std::string& text);

  // out[i] = 1 where tokens[i] may come next. End-of-generation tokens may where the grammar is complete; other control tokens and
  // tokens without text never. Errors: unsupported.
  Status allowed(std::span<const TokenId> tokens, std::span<uint8_t> out);
  // The token comes next. REQUIRES: allowed. Costs nothing until the next question.
  void accept(TokenId token) { accepted_.push_back(token); }

 private:
  explicit Grammar(std::string what) : child_(std::move(what), ChildLimits{}) {}

  Child child_;
  std::vector<TokenId> accepted_;  // since the last question
};

}  // namespace bough
