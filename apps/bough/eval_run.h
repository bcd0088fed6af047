// Runs the cells of a quality task: plan by plan, text by text, length by length, band by band.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli.h"
#include "eval/corpus.h"
#include "eval/prompt.h"

namespace bough::cli {

struct EvalOptions {
  ModelOptions model;
  std::vector<std::string> plans;
  std::vector<std::string> texts;
  std::string lengths = "8192,32768";
  std::string out;
  int trials = 10;
  int depths = 1;
  uint64_t seed = 0;
  int64_t rows = 0;
  bool one_haystack = false;
  bool many_haystacks = false;
  bool chat = false;
  bool decoded = false;
  bool json = false;
};

using PromptMaker = std::function<Result<std::vector<eval::Prompt>>(const Engine&, const eval::Corpus&, const eval::TrialSet&)>;

// One task: what its cells are called and made of.
struct EvalTask {
  enum class Kind : uint8_t { trials, ppl, logits };

  std::string name;  // in results
  Kind kind = Kind::trials;
  std::string text;      // its own: "filler", "lines" or "words"; empty: each that --text names
  bool by_depth = true;  // --depths divides it
  PromptMaker prompts;   // of a task of trials
};

// The exit code.
int evaluate(EvalOptions options, const std::vector<EvalTask>& tasks);

}  // namespace bough::cli
