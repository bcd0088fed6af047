#include "session_cache.h"

#include <cstdio>

#include "base/check.h"
#include "format.h"

namespace bough::cli {
namespace {

constexpr size_t least_tokens = 1024;    // what is shorter is read faster than looked for
constexpr size_t least_bytes = 1 << 16;  // tokenized faster than looked for
constexpr size_t label_bytes = 80;

// The first words as one line.
std::string beginning_of(std::string_view text) {
  std::string words;
  for (const char c : text) {
    const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (blank && (words.empty() || words.back() == ' ')) continue;
    const bool starts_character = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (words.size() >= label_bytes && starts_character) break;
    words += blank ? ' ' : c;
  }
  return words;
}

}  // namespace

void add_session_options(CLI::App& command, SessionOptions& options) {
  command.add_flag("--no-session", options.off, "Neither use nor keep what was read");
  command.add_option("--session-budget", options.budget_gigabytes, "Disk space for all texts that were read, in GB")
      ->check(number_between(0, 1'000'000))
      ->type_name("GB")
      ->capture_default_str();
}

SessionStore session_store(const SessionOptions& options) {
  return SessionStore({.folder = cache_folder() + "/sessions", .budget_bytes = static_cast<int64_t>(options.budget_gigabytes * 1e9)});
}

Result<std::vector<TokenId>> tokens_of(Engine& engine, const SessionOptions& options, const std::string& text, bool add_bos) {
  if (options.off || text.size() < least_bytes) return engine.tokenize(text, add_bos);
  return session_store(options).tokenize(engine, text, add_bos);
}

Status find_session(Conversation& conversation, const SessionOptions& options, std::span<const TokenId> prompt,
                    const TokenizedText& source) {
  if (options.off || prompt.size() < least_tokens) return {};
  const bool long_text = source.text.size() >= least_bytes;
  BOUGH_ASSIGN_OR_RETURN(
      SessionStore::Opened opened,
      session_store(options).open_session(*conversation.engine, prompt, beginning_of(source.text), long_text ? &source : nullptr));
  for (const std::string& note : opened.notes) std::fprintf(stderr, "bough: %s\n", note.c_str());
  conversation.session = std::move(opened.session);
  conversation.reused_tokens = opened.reused;
  if (opened.reused > 0) {
    std::fprintf(stderr, "bough: %s tokens read before, %s to read\n", grouped(opened.reused).c_str(),
                 grouped(static_cast<int64_t>(prompt.size()) - opened.reused).c_str());
  }
  return {};
}

int64_t unkept_tokens(const Conversation& conversation, std::span<const TokenId> prompt) {
  return conversation.session->is_keeping() ? 0 : static_cast<int64_t>(prompt.size()) - conversation.reused_tokens;
}

}  // namespace bough::cli
