// Reading a prompt and streaming its answer, for `ask`, `chat` and `run`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "bough/engine.h"
#include "cli.h"
#include "sources.h"

namespace bough::cli {

struct Conversation {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
  bool json = false;
  int64_t reused_tokens = 0;  // that a session file held
  int64_t read_tokens = 0;
  double read_seconds = 0;
  bool told_of_keeping = false;     // that what is read is no longer kept
  std::optional<ReadText> sources;  // the text whose passages are shown with the answer
};

// Opens the engine with an empty session; from then on Ctrl-C asks to stop. Errors: those of open_engine and new_session.
Result<Conversation> open_conversation(const ModelOptions& model, const std::string& plan, bool json);

// Appends tokens with progress on stderr (events on stdout with --json). Says so on stderr when they are no longer kept. Errors: those
// of Session::append; cancelled after Ctrl-C, in a sentence that says how much was read; out_of_memory when they are no longer kept
// and the rest does not fit.
Status read_tokens(Conversation& conversation, std::span<const TokenId> tokens, bool will_sample, const std::string& label);

// Streams the answer to stdout (on_text is set here). Errors: those of Session::generate; io_error when stdout takes no more.
Result<Generation> print_answer(Conversation& conversation, GenerateOptions options);

// print_answer; then reports the passages it drew on, reading, answering and peak memory. Returns the exit code.
int stream_answer(Conversation& conversation, GenerateOptions options);

}  // namespace bough::cli
