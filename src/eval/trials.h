// Runs prompts on a session and scores the answers: known tokens fed one by one, or strings looked for in a greedy answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "eval/prompt.h"
#include "eval/report.h"

namespace bough::eval {

// How many of the expected strings the answer holds, upper and lower case being equal in ASCII.
int strings_found(std::string_view answer, std::span<const std::string> expected);

// 1 for the first passage of which, or which of the prompt's needle, holds at least half; 0 if there is none.
int source_rank(std::span<const Source> sources, const Prompt& prompt);

// Tokens that both start with, rounded down to a multiple of 64: rolling back to there and reading on equals a fresh read.
int64_t shared_prefix(std::span<const TokenId> a, std::span<const TokenId> b);

struct TrialResult {
  int trial = 0;
  std::string key;
  int64_t needle = 0;
  int right = 0;        // answer tokens that were the first choice, or strings found
  int wanted = 0;       // of so many
  double nll = 0;       // nats, summed over the answer tokens; 0 for a greedy answer
  std::string answer;   // the greedy answer
  int source_rank = 0;  // of the first passage that is the needle's among those that the answer drew on; 0: not among the first ten
};

struct TrialOptions {
  bool share_prefixes = true;                         // false: every trial reads its whole prompt
  std::function<bool(const Progress&)> progress;      // over all tokens that the prompts take to read; false cancels
  std::function<void(const TrialResult&)> on_result;  // after each trial
};

// One session for prompts of an engine's cells. What a text has in common with the one read before it is not read again.
class TrialRunner {
 public:
  static Result<TrialRunner> create(Engine& engine);

  // Runs the prompts round by round, from the deepest trial to the shallowest, and fills a cell's trials and figures. A greedy answer
  // ends as soon as it holds everything expected: more text changes no score. Errors: invalid_argument (no prompts), cancelled, those of
  // Session::append.
  Result<Cell> run(std::span<const Prompt> prompts, const TrialOptions& options);

 private:
  TrialRunner(Engine& engine, std::unique_ptr<Session> session) : engine_(&engine), session_(std::move(session)) {}

  Status read(const Prompt& prompt, int64_t kept, const std::function<bool(int64_t)>& report);
  Result<TrialResult> answer(const Prompt& prompt);
  Status feed(const Prompt& prompt, TrialResult& result);
  Status generate(const Prompt& prompt, TrialResult& result);

  Engine* engine_;
  std::unique_ptr<Session> session_;
  std::vector<TokenId> text_;  // the last prompt's text, all of it in the session's cache
};

}  // namespace bough::eval
