// A model's own chat template: messages to prompt tokens, with contents that can never act as control tokens.
//
// Templates come with model files, so they are not trusted: at most 64 KiB and 64 brackets or blocks deep, rendered in a child process
// that has 256 MiB, 5 seconds and 16 MiB of output (child.h). The template never sees a message's content. A private word without
// blanks stands for it, and the content takes the word's place in the rendered text: verbatim, so a template that trims or alters
// contents leaves them as they are, and one that decides by what a content holds (reasoning tags in old answers, say) does not see
// it. Empty contents are given as they are. Control tokens are recognised only in the template's own text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "bough/status.h"
#include "bough/types.h"
#include "text/tokenizer.h"

namespace bough {

inline constexpr size_t kMaxTemplateBytes = size_t{64} << 10;
inline constexpr int kMaxTemplateDepth = 64;
inline constexpr size_t kMaxMessages = 10000;

// A piece of a rendered prompt.
struct PromptPart {
  bool from_template = true;
  std::string text;
};

class ChatTemplate {
 public:
  // `bos` and `eos` are what the template sees as bos_token and eos_token. Errors: unsupported (empty, too long or too deep).
  static Result<ChatTemplate> create(std::string source, std::string bos, std::string eos);
  // The template of the tokenizer's file. Errors: those of create; unsupported when the file has none.
  static Result<ChatTemplate> of(const Tokenizer& tokenizer);

  // The prompt as its parts in order; no two neighbours of the same kind. Errors: invalid_argument (no message, more than 10,000, a
  // role that is not 1 to 32 letters, digits, '_' or '-'), unsupported (the template fails, exceeds a limit or drops a content).
  Result<std::vector<PromptPart>> render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;

  const std::string& source() const { return source_; }

 private:
  ChatTemplate() = default;

  std::string source_;
  std::string bos_;
  std::string eos_;
};

// The prompt's tokens. BOS comes first exactly once if the template prints it or the vocabulary asks for it.
// Errors: those of render and tokenize.
Result<std::vector<TokenId>> chat_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                         std::span<const ChatMessage> messages, bool add_generation_prompt);

// The prompt cut where `marker` stands in one of the contents: there the caller puts a long text's tokens (tokenize without BOS
// and without parse_special). Errors: those of chat_tokens; invalid_argument unless the marker stands exactly once in the contents;
// unsupported when the template prints that content more than once.
Result<SplitPrompt> split_chat_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template, std::span<const ChatMessage> messages,
                                      std::string_view marker, bool add_generation_prompt);

}  // namespace bough
