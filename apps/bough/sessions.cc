// bough sessions: the texts that were read before.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>

#include <nlohmann/json.hpp>

#include "cli.h"
#include "format.h"
#include "session_cache.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

struct RemoveOptions {
  std::vector<std::string> ids;
  bool all = false;
};

std::string time_text(int64_t seconds) {
  const std::time_t time = seconds;
  std::tm local{};
  char text[32];
  if (localtime_r(&time, &local) == nullptr || std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", &local) == 0) return "?";
  return text;
}

void print_json(const StoredSession& s) {
  const Json line = {{"id", s.id}, {"tokens", s.tokens}, {"bytes", s.bytes},       {"model", s.model},
                     {"kv", s.kv}, {"text", s.label},    {"last_use", s.last_use}, {"damage", s.damage}};
  print_line(line.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Control characters of a file's texts never reach the terminal.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return text;
}

int list_sessions(bool json) {
  const Result<std::vector<StoredSession>> sessions = session_store({}).list();
  if (!sessions.ok()) return fail(sessions.status());
  int64_t bytes = 0;
  for (const StoredSession& s : *sessions) {
    bytes += s.bytes;
    if (json) {
      print_json(s);
      continue;
    }
    std::printf("%-8s  %11s tokens  %8s  %s  %s, %s  %s\n", s.id.c_str(), grouped(s.tokens).c_str(),
                byte_text(static_cast<double>(s.bytes)).c_str(), time_text(s.last_use).c_str(), printable(s.model).c_str(), s.kv.c_str(),
                s.damage.empty() ? printable(s.label).c_str() : printable(s.damage).c_str());
  }
  if (json) return exit_ok;
  std::printf("%zu session%s, %s\n", sessions->size(), sessions->size() == 1 ? "" : "s", byte_text(static_cast<double>(bytes)).c_str());
  return exit_ok;
}

int remove_sessions(RemoveOptions options) {
  if (options.all != options.ids.empty()) return fail_usage("sessions rm takes ids, or --all for every session");
  const SessionStore store = session_store({});
  if (options.all) {
    const Result<std::vector<StoredSession>> sessions = store.list();
    if (!sessions.ok()) return fail(sessions.status());
    for (const StoredSession& s : *sessions) options.ids.push_back(s.id);
  }
  int code = exit_ok;
  for (const std::string& id : options.ids) {
    const Status removed = store.remove(id);
    if (!removed.ok() && !(options.all && removed.code() == Code::not_found)) code = fail(removed);
  }
  return code;
}

}  // namespace

void add_sessions(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("sessions", "List or remove the texts that were read before");
  command->require_subcommand(1);
  command->footer(
      "Example:\n"
      "  bough sessions list\n"
      "\n"
      "What `bough ask` has read lies in ${BOUGH_CACHE:-${XDG_CACHE_HOME:-~/.cache}/bough}/sessions.");
  CLI::App* list = command->add_subcommand("list", "Id, tokens, bytes, last use, model and first words of each, last used first");
  auto json = std::make_shared<bool>(false);
  list->add_flag("--json", *json, "One JSON object a line");
  list->footer("Example:\n  bough sessions list --json");
  list->callback([json, &action] { action = [json] { return list_sessions(*json); }; });
  CLI::App* remove = command->add_subcommand("rm", "Remove sessions");
  auto options = std::make_shared<RemoveOptions>();
  remove->add_option("ID", options->ids, "As listed");
  remove->add_flag("--all", options->all, "Remove every session");
  remove->footer("Example:\n  bough sessions rm --all");
  remove->callback([options, &action] { action = [options] { return remove_sessions(*options); }; });
}

}  // namespace bough::cli
