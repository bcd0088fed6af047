#include "text/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "text/child.h"
#include "text/jinja.h"
#include "text/template_depth.h"

namespace bough {
namespace {

// Stands for the content of message i in what the template renders. Lower case and digits only, of fixed length: a template may
// trim it, but must not cut or change it.
constexpr std::string_view kWord = "boughcontentplaceholder";
constexpr size_t kDigits = 6;

std::string word_for(size_t message) {
  const std::string number = std::to_string(message);
  return std::string(kWord) + std::string(kDigits - number.size(), '0') + number;
}

bool is_role(std::string_view role) {
  return !role.empty() && role.size() <= 32 && std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

Status check_messages(std::span<const ChatMessage> messages) {
  if (messages.empty()) return {Code::invalid_argument, "A chat prompt needs at least one message."};
  if (messages.size() > kMaxMessages) {
    return {Code::invalid_argument,
            std::to_string(messages.size()) + " messages are more than the " + std::to_string(kMaxMessages) + " of one chat prompt."};
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (!is_role(role) || role.find(kWord) != std::string::npos) {
      return {Code::invalid_argument, "The role of message " + std::to_string(i + 1) + " is not 1 to 32 letters, digits, '_' or '-'."};
    }
  }
  return {};
}

void add_part(std::vector<PromptPart>& parts, bool from_template, std::string_view text) {
  if (text.empty()) return;
  if (parts.empty() || parts.back().from_template != from_template) parts.push_back({from_template, {}});
  parts.back().text.append(text);
}

// Puts the contents where their words stand.
Result<std::vector<PromptPart>> fill_in(std::string_view rendered, std::span<const ChatMessage> messages) {
  constexpr size_t max_prompt_bytes = size_t{1} << 30;
  std::vector<PromptPart> parts;
  size_t bytes = rendered.size();
  while (true) {
    const size_t at = rendered.find(kWord);
    add_part(parts, true, rendered.substr(0, at));
    if (at == std::string_view::npos) return parts;
    rendered.remove_prefix(at + kWord.size());
    size_t message = 0;
    size_t digits = 0;
    for (; digits < kDigits && digits < rendered.size() && rendered[digits] >= '0' && rendered[digits] <= '9'; ++digits) {
      message = message * 10 + static_cast<size_t>(rendered[digits] - '0');
    }
    if (digits != kDigits || message >= messages.size()) {
      return Status(Code::unsupported, "The chat template alters the content of a message.");
    }
    rendered.remove_prefix(kDigits);
    const std::string& content = messages[message].content;
    bytes += content.size();
    if (bytes > max_prompt_bytes) {
      return Status(Code::invalid_argument, "The chat prompt is longer than " + std::to_string(max_prompt_bytes) + " bytes.");
    }
    add_part(parts, false, content);
  }
}

}  // namespace

Result<ChatTemplate> ChatTemplate::create(std::string source, std::string bos, std::string eos) {
  if (source.empty()) return Status(Code::unsupported, "The model file has no chat template.");
  if (source.size() > kMaxTemplateBytes) {
    return Status(Code::unsupported, "A chat template of " + std::to_string(source.size()) + " bytes is longer than " +
                                         std::to_string(kMaxTemplateBytes) + ".");
  }
  if (const int depth = template_depth(source); depth > kMaxTemplateDepth) {
    return Status(Code::unsupported,
                  "The chat template nests " + std::to_string(depth) + " deep, more than " + std::to_string(kMaxTemplateDepth) + ".");
  }
  if (source.find(kWord) != std::string::npos) {
    return Status(Code::unsupported, "The chat template holds the reserved word '" + std::string(kWord) + "'.");
  }
  ChatTemplate made;
  made.source_ = std::move(source);
  made.bos_ = std::move(bos);
  made.eos_ = std::move(eos);
  return made;
}

Result<ChatTemplate> ChatTemplate::of(const Tokenizer& tokenizer) {
  const auto text_of = [&](std::optional<TokenId> token) -> Result<std::string> {
    return token ? tokenizer.piece(*token, true) : std::string();
  };
  BOUGH_ASSIGN_OR_RETURN(std::string bos, text_of(tokenizer.bos()));
  BOUGH_ASSIGN_OR_RETURN(std::string eos, text_of(tokenizer.eos()));
  return create(tokenizer.chat_template(), std::move(bos), std::move(eos));
}

Result<std::vector<PromptPart>> ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  BOUGH_RETURN_IF_ERROR(check_messages(messages));
  JinjaInput input;
  input.source = source_;
  input.bos = bos_;
  input.eos = eos_;
  input.add_generation_prompt = add_generation_prompt;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string word = messages[i].content.empty() ? std::string() : word_for(i);
    input.messages.push_back({messages[i].role, word});
    if (!word.empty()) input.required.push_back(word);
  }
  BOUGH_ASSIGN_OR_RETURN(const std::string rendered, run_in_child("The chat template", ChildLimits{}, [&] { return render_jinja(input); }));
  return fill_in(rendered, messages);
}

}  // namespace bough
