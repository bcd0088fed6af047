// A grammar as the library follows it, without any bound: only for a child process (child.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "bough/status.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

struct llama_sampler;

namespace bough {

class GrammarChild {
 public:
  explicit GrammarChild(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  ~GrammarChild();
  GrammarChild(const GrammarChild&) = delete;
  GrammarChild& operator=(const GrammarChild&) = delete;

  // Parses; an empty string. Errors: invalid_argument, with what the library reports on stderr or in its log, both of which it takes over.
  Result<std::string> open(GrammarKind kind, const std::string& text);
  // Request: uint64 n, n tokens to accept, tokens to judge; one byte for each of these, 1 where it may come next. May throw what the
  // library throws.
  Result<std::string> answer(std::string_view request);

 private:
  const Tokenizer& tokenizer_;
  llama_sampler* sampler_ = nullptr;
};

}  // namespace bough
