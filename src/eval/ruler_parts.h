// What the generators of the RULER tasks share.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "eval/prompt.h"
#include "eval/random.h"
#include "eval/ruler.h"

namespace bough::eval {

struct RulerTrial {
  const Engine& engine;
  const Corpus& corpus;
  const std::function<bool(TokenId)>& ends_sentence;
  const TrialSet& set;
  int trial = 0;
  bool chat = false;
  Random random;  // of the task, seed and trial
};

// The words around the long part of a prompt.
struct RulerFrame {
  std::string_view introduction;  // ends where the long part begins
  std::string question;
  std::string lead;  // the beginning of the answer, given; begins with a blank
  std::vector<std::string> expected;
  int64_t answer_room = 0;
};

// The prompt without its long part: text is what stands before it.
Result<Prompt> framed(const RulerTrial& trial, const RulerFrame& frame);

// What hides in the text: `keys` keys of `values` values each, of which the first `asked` are asked for.
struct RulerNeedles {
  int keys = 1;
  int values = 1;
  int asked = 1;
  bool uuid_keys = false;
  bool uuid_values = false;
};

Result<Prompt> needles_prompt(RulerTrial trial, const RulerNeedles& needles, bool by_depth);
// Every sentence of the text is a key with its value; one is asked for, at the trial's depth.
Result<Prompt> lines_prompt(RulerTrial trial, const RulerNeedles& needles);
Result<Prompt> variables_prompt(RulerTrial trial);
Result<Prompt> common_words_prompt(RulerTrial trial);
Result<Prompt> frequent_words_prompt(RulerTrial trial);

}  // namespace bough::eval
