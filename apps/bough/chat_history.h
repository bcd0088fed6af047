// A conversation as a file: {"messages":[{"role":"user","content":"..."},{"role":"assistant","content":"..."}]}.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bough/engine.h"

namespace bough::cli {

// Puts the file in the place of `path` once it is complete. Errors: io_error.
Status save_history(const std::string& path, std::span<const ChatMessage> messages);

// Errors: those of read_text; invalid_argument unless users and assistants take turns, an assistant last.
Result<std::vector<ChatMessage>> load_history(const std::string& path);

}  // namespace bough::cli
