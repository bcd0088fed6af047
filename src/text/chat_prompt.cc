// chat_tokens and split_chat_tokens: a rendered prompt to tokens.
//
// Template text and contents are joined again as far as they are plain text, so that words and blanks across a seam tokenize as in the
// prompt written out; only the stretches of template text from its first to its last control token are parsed for specials.

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "text/chat_template.h"

namespace bough {
namespace {

enum class Kind : uint8_t { plain, special, gap };

struct Run {
  Kind kind = Kind::plain;
  std::string text;
};

void add_plain(std::vector<Run>& runs, std::string_view text) {
  if (text.empty()) return;
  if (runs.empty() || runs.back().kind != Kind::plain) runs.push_back({Kind::plain, {}});
  runs.back().text.append(text);
}

// Where the control tokens of a template's text begin and end, and whether they swallow the blanks beside them.
struct Specials {
  size_t begin = 0;
  size_t end = 0;
  bool strips_left = false;
  bool strips_right = false;
};

std::optional<Specials> find_specials(const Tokenizer& tokenizer, std::string_view text) {
  std::optional<Specials> found;
  for (const SpecialText& special : tokenizer.special_texts()) {
    const size_t first = text.find(special.text);
    if (first == std::string_view::npos) continue;
    const size_t last = text.rfind(special.text) + special.text.size();
    if (!found) found = Specials{first, last, special.strips_left, special.strips_right};
    if (first < found->begin) {
      found->begin = first;
      found->strips_left = special.strips_left;
    }
    if (last > found->end) {
      found->end = last;
      found->strips_right = special.strips_right;
    }
  }
  return found;
}

void add_template_text(std::vector<Run>& runs, const Tokenizer& tokenizer, std::string_view text) {
  constexpr std::string_view blanks = " \t\n\r\v\f";
  const std::optional<Specials> found = find_specials(tokenizer, text);
  if (!found) return add_plain(runs, text);
  std::string_view head = text.substr(0, found->begin);
  std::string_view tail = text.substr(found->end);
  if (found->strips_left) head = head.substr(0, head.find_last_not_of(blanks) + 1);
  if (found->strips_right) tail.remove_prefix(std::min(tail.find_first_not_of(blanks), tail.size()));
  add_plain(runs, head);
  runs.push_back({Kind::special, std::string(text.substr(found->begin, found->end - found->begin))});
  add_plain(runs, tail);
}

// `marker`, unless empty, makes a gap where it stands in a content.
std::vector<Run> to_runs(const Tokenizer& tokenizer, std::span<const PromptPart> parts, std::string_view marker) {
  std::vector<Run> runs;
  for (const PromptPart& part : parts) {
    std::string_view text = part.text;
    if (part.from_template) {
      add_template_text(runs, tokenizer, text);
      continue;
    }
    for (size_t at = 0; !marker.empty() && (at = text.find(marker)) != std::string_view::npos;) {
      add_plain(runs, text.substr(0, at));
      runs.push_back({Kind::gap, {}});
      text.remove_prefix(at + marker.size());
    }
    add_plain(runs, text);
  }
  return runs;
}

Result<std::vector<TokenId>> run_tokens(const Tokenizer& tokenizer, std::span<const Run> runs) {
  std::vector<TokenId> out;
  for (const Run& run : runs) {
    const TokenizeOptions options{.add_bos_as_model_says = false, .parse_special = run.kind == Kind::special};
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, tokenizer.tokenize(run.text, options));
    out.insert(out.end(), tokens.begin(), tokens.end());
  }
  return out;
}

void add_bos_once(const Tokenizer& tokenizer, std::vector<TokenId>& tokens) {
  if (!tokenizer.adds_bos()) return;
  const TokenId bos = *tokenizer.bos();
  if (tokens.empty() || tokens.front() != bos) tokens.insert(tokens.begin(), bos);
}

size_t count(std::string_view text, std::string_view marker) {
  size_t found = 0;
  for (size_t at = text.find(marker); at != std::string_view::npos; at = text.find(marker, at + marker.size())) ++found;
  return found;
}

}  // namespace

Result<std::vector<TokenId>> chat_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                         std::span<const ChatMessage> messages, bool add_generation_prompt) {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<PromptPart> parts, chat_template.render(messages, add_generation_prompt));
  BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, run_tokens(tokenizer, to_runs(tokenizer, parts, {})));
  add_bos_once(tokenizer, tokens);
  return tokens;
}

Result<SplitPrompt> split_chat_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template, std::span<const ChatMessage> messages,
                                      std::string_view marker, bool add_generation_prompt) {
  if (marker.empty()) return Status(Code::invalid_argument, "The marker of a split prompt is empty.");
  size_t markers = 0;
  for (const ChatMessage& message : messages) markers += count(message.content, marker);
  if (markers != 1) {
    return Status(Code::invalid_argument,
                  "The contents hold the marker of a split prompt " + std::to_string(markers) + " times instead of once.");
  }
  BOUGH_ASSIGN_OR_RETURN(const std::vector<PromptPart> parts, chat_template.render(messages, add_generation_prompt));
  const std::vector<Run> runs = to_runs(tokenizer, parts, marker);
  const auto is_gap = [](const Run& run) { return run.kind == Kind::gap; };
  if (std::count_if(runs.begin(), runs.end(), is_gap) != 1) {
    return Status(Code::unsupported, "The chat template prints the content that holds the long text more than once.");
  }
  const auto gap = std::find_if(runs.begin(), runs.end(), is_gap);
  SplitPrompt prompt;
  BOUGH_ASSIGN_OR_RETURN(prompt.before, run_tokens(tokenizer, std::span(runs.begin(), gap)));
  BOUGH_ASSIGN_OR_RETURN(prompt.after, run_tokens(tokenizer, std::span(gap + 1, runs.end())));
  add_bos_once(tokenizer, prompt.before);
  return prompt;
}

}  // namespace bough
