// Any text as a chat template: bounded before it is rendered, rendered in a bounded child, and always a prompt or a sentence.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/property.h"
#include "text/chat_template.h"
#include "text/template_depth.h"

using namespace bough;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  fuzz::require(template_depth(source) >= 0, "a depth is not negative");
  const Result<ChatTemplate> made = ChatTemplate::create(source, "<s>", "</s>");
  fuzz::require_sentence(made.status());
  if (!made.ok()) return 0;
  // A fork costs milliseconds: one input in eight is rendered, always the same ones.
  uint32_t hash = 2166136261U;
  for (const char c : source) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619U;
  if (hash % 8 != 0) return 0;
  const ChatMessage messages[] = {{"system", "be brief"}, {"user", "<s>hello</s>"}, {"assistant", ""}, {"user", "again"}};
  const Result<std::vector<PromptPart>> parts = made->render(messages, true);
  fuzz::require_sentence(parts.status());
  if (!parts.ok()) return 0;
  std::string contents;
  for (size_t i = 0; i < parts->size(); ++i) {
    fuzz::require(i == 0 || (*parts)[i].from_template != (*parts)[i - 1].from_template, "neighbouring parts differ in kind");
    if (!(*parts)[i].from_template) contents += (*parts)[i].text;
  }
  for (const char* content : {"be brief", "<s>hello</s>", "again"}) {
    fuzz::require(contents.find(content) != std::string::npos, "no content is dropped or changed");
  }
  return 0;
}
