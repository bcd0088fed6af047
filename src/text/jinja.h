// Rendering of chat templates, without any bound: only for a child process (child.h).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "bough/status.h"

namespace bough {

struct JinjaInput {
  std::string source;
  std::string bos;  // what the template sees as bos_token and eos_token
  std::string eos;
  std::vector<ChatMessage> messages;
  std::vector<std::string> required;  // strings that the text must contain
  bool add_generation_prompt = true;
};

// Renders, and if the template fails or leaves out a required string, tries what templates differ in: a system message folded into
// the message after it, contents as lists of typed parts. Never throws but std::bad_alloc. Errors: unsupported, with what the
// template reports for the messages as they are.
Result<std::string> render_jinja(const JinjaInput& input);

}  // namespace bough
