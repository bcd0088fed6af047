#include "text/jinja.h"

#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>

#include <exception>
#include <new>
#include <string_view>

#include "text/utf8.h"

namespace bough {
namespace {

struct Style {
  bool typed_parts = false;  // content as [{"type": "text", "text": ...}]
  bool fold_system = false;  // no system message: its text starts the next one
};

jinja::value text_value(const std::string& text) { return jinja::mk_val<jinja::value_string>(text); }

jinja::value content_value(const std::string& content, const Style& style) {
  if (!style.typed_parts) return text_value(content);
  auto part = jinja::mk_val<jinja::value_object>();
  part->insert("type", text_value("text"));
  part->insert("text", text_value(content));
  auto parts = jinja::mk_val<jinja::value_array>();
  parts->push_back(part);
  return parts;
}

bool can_fold(std::span<const ChatMessage> messages) { return messages.size() > 1 && messages[0].role == "system"; }

jinja::value messages_value(std::span<const ChatMessage> messages, const Style& style) {
  auto list = jinja::mk_val<jinja::value_array>();
  const bool fold = style.fold_system && can_fold(messages);
  for (size_t i = fold ? 1 : 0; i < messages.size(); ++i) {
    const std::string content = fold && i == 1 ? messages[0].content + "\n" + messages[1].content : messages[i].content;
    auto message = jinja::mk_val<jinja::value_object>();
    message->insert("role", text_value(messages[i].role));
    message->insert("content", content_value(content, style));
    list->push_back(message);
  }
  return list;
}

// One line that says what the library's report says, without its excerpt of the source.
std::string one_line(std::string_view report) {
  constexpr size_t most = 300;
  if (const size_t at = report.rfind("Error: "); at != std::string_view::npos) report.remove_prefix(at + 7);
  while (!report.empty() && (report.front() == '\n' || report.front() == ' ')) report.remove_prefix(1);
  report = report.substr(0, report.find('\n')).substr(0, most);
  std::string line = replace_invalid_utf8(report);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  while (!line.empty() && (line.back() == '.' || line.back() == ' ')) line.pop_back();
  return line;
}

// The library wraps every exception in one of its own, so that only the words tell them apart.
bool is_out_of_memory(std::string_view report) { return report.find("bad_alloc") != std::string_view::npos; }

Result<std::string> render_once(const jinja::program& program, const JinjaInput& input, const Style& style) {
  jinja::context context(input.source);
  context.set_val("messages", messages_value(input.messages, style));
  context.set_val("bos_token", text_value(input.bos));
  context.set_val("eos_token", text_value(input.eos));
  context.set_val("enable_thinking", jinja::mk_val<jinja::value_bool>(true));
  context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(input.add_generation_prompt));
  std::string text;
  try {
    jinja::runtime runtime(context);
    const jinja::value results = runtime.execute(program);
    text = jinja::runtime::gather_string_parts(results)->as_string().str();
  } catch (const std::exception& e) {
    if (is_out_of_memory(e.what())) throw std::bad_alloc();
    return Status(Code::unsupported, "The chat template fails: " + one_line(e.what()) + ".");
  }
  for (size_t i = 0; i < input.required.size(); ++i) {
    if (text.find(input.required[i]) != std::string::npos) continue;
    return Status(Code::unsupported, "The chat template leaves out or alters the content of a message (the " + std::to_string(i + 1) +
                                         ". that is not empty).");
  }
  return text;
}

}  // namespace

Result<std::string> render_jinja(const JinjaInput& input) {
  jinja::program program;
  try {
    jinja::lexer lexer;
    program = jinja::parse_from_tokens(lexer.tokenize(input.source));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return Status(Code::unsupported, "The chat template cannot be parsed: " + one_line(e.what()) + ".");
  }
  Result<std::string> plain = render_once(program, input, {});
  if (plain.ok()) return plain;
  for (const Style style : {Style{false, true}, Style{true, false}, Style{true, true}}) {
    if (style.fold_system && !can_fold(input.messages)) continue;
    Result<std::string> other = render_once(program, input, style);
    if (other.ok() && !input.required.empty()) return other;
  }
  return plain;
}

}  // namespace bough
