// Texts that were read before: the session files under the user's cache folder.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "answer.h"
#include "bough/session_store.h"
#include "cli.h"

namespace bough::cli {

struct SessionOptions {
  bool off = false;
  double budget_gigabytes = 20;
};

void add_session_options(CLI::App& command, SessionOptions& options);

SessionStore session_store(const SessionOptions& options);

// As Engine::tokenize, but a text that was read before is not tokenized again.
Result<std::vector<TokenId>> tokens_of(Engine& engine, const SessionOptions& options, const std::string& text, bool add_bos);

// Gives the conversation the session that holds most of the prompt's first tokens, and lets it keep the rest of `prompt` as it is read.
// `source` is the text with its tokens, kept for tokens_of; the list of sessions shows its beginning. What was found, and what went wrong
// with files, goes to stderr. Short prompts are left alone. Errors: those of SessionStore::open_session.
Status find_session(Conversation& conversation, const SessionOptions& options, std::span<const TokenId> prompt,
                    const TokenizedText& source);

// Tokens of the prompt's text that no file holds or will hold.
int64_t unkept_tokens(const Conversation& conversation, std::span<const TokenId> prompt);

}  // namespace bough::cli
