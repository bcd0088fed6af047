// Reading a prompt and streaming its answer, for `ask` and `run`.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "bough/engine.h"
#include "cli.h"

namespace bough::cli {

struct Conversation {
  Engine& engine;
  Session& session;
  bool json = false;
  int64_t read_tokens = 0;
  double read_seconds = 0;
};

// Appends tokens with progress on stderr (events on stdout with --json). Errors: those of Session::append; cancelled after Ctrl-C, in
// a sentence that says how much was read.
Status read_tokens(Conversation& conversation, std::span<const TokenId> tokens, bool will_sample, const std::string& label);

// Streams the answer (on_text is set here), then reports reading, answering and peak memory. Returns the exit code.
int stream_answer(Conversation& conversation, GenerateOptions options);

}  // namespace bough::cli
