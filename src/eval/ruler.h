// The eleven synthetic tasks of RULER (arXiv 2404.06654), from its description and in sentences of our own: four kinds of needles among
// text, variables that take each other's value, and words to be counted. A greedy answer is scored by how many of the expected strings
// it holds.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/prompt.h"

namespace bough::eval {

// What a task's prompts are made of.
enum class RulerText : uint8_t {
  filler,  // a few sentences repeated
  corpus,  // the text that the caller names
  lines,   // sentences like the one asked for, each with its own key and value
  words,   // a list of words
};

struct RulerTask {
  std::string_view name;  // "single-1", ...
  RulerText text = RulerText::corpus;
  bool by_depth = false;  // one passage has the answer, so that its depth matters
};

std::span<const RulerTask> ruler_tasks();
// Errors: not_found, with all names.
Result<RulerTask> find_ruler_task(std::string_view name);
// As reports name the text: "filler", "lines" or "words"; empty for the caller's.
std::string ruler_text_name(RulerText text);

// The prompts of a band: text, question and room for the answer together at most set.length tokens. `chat`: text and question are one
// user turn of the model's chat template. `corpus` is the filler or the caller's text; tasks of lines and words do not look at it.
// Errors: invalid_argument (prompt too short or, where words run out, too long; corpus too short), those of
// Engine::chat_prompt_around_text.
Result<std::vector<Prompt>> ruler_prompts(const Engine& engine, const RulerTask& task, const Corpus& corpus, const TrialSet& set,
                                          bool chat);

}  // namespace bough::eval
