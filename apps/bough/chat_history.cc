#include "chat_history.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "input.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

Status no_history(const std::string& path, const std::string& why) {
  return {Code::invalid_argument, "'" + path + "' is no conversation: " + why};
}

}  // namespace

Status save_history(const std::string& path, std::span<const ChatMessage> messages) {
  Json list = Json::array();
  for (const ChatMessage& m : messages) list.push_back({{"role", m.role}, {"content", m.content}});
  const std::string text = Json({{"messages", list}}).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  const std::string part = path + ".part";
  FileSystem& files = machine_files();
  const auto write = [&]() -> Status {
    BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.open(part, OpenMode::create));
    BOUGH_RETURN_IF_ERROR(file->truncate(0));
    BOUGH_RETURN_IF_ERROR(file->write(0, std::as_bytes(std::span(text))));
    BOUGH_RETURN_IF_ERROR(file->sync());
    return files.rename(part, path);
  };
  Status written = write();
  if (!written.ok()) static_cast<void>(files.remove(part));
  return written;
}

Result<std::vector<ChatMessage>> load_history(const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(const std::string text, read_text(path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("messages") || !json["messages"].is_array()) return no_history(path, "it has no list 'messages'");
  std::vector<ChatMessage> messages;
  for (const Json& entry : json["messages"]) {
    const char* expected = messages.size() % 2 == 0 ? "user" : "assistant";
    const std::string which = "message " + std::to_string(messages.size() + 1);
    if (!entry.is_object() || entry.value("role", Json()) != expected) return no_history(path, which + " has not the role " + expected);
    if (!entry.value("content", Json()).is_string()) return no_history(path, which + " has no text 'content'");
    messages.push_back({expected, entry["content"].get<std::string>()});
  }
  if (messages.size() % 2 != 0) return no_history(path, "its last message has no answer");
  return messages;
}

}  // namespace bough::cli
