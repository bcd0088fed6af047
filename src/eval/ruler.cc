// The RULER tasks by name.
#include "eval/ruler.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/ruler_parts.h"

namespace bough::eval {
namespace {

constexpr std::array<RulerTask, 11> tasks = {{
    {"single-1", RulerText::filler, true},
    {"single-2", RulerText::corpus, true},
    {"single-3", RulerText::corpus, true},
    {"multi-key-1", RulerText::corpus, true},
    {"multi-key-2", RulerText::lines, true},
    {"multi-key-3", RulerText::lines, true},
    {"multi-value", RulerText::corpus, false},
    {"multi-query", RulerText::corpus, false},
    {"variables", RulerText::filler, false},
    {"common-words", RulerText::words, false},
    {"frequent-words", RulerText::words, false},
}};

Result<Prompt> task_prompt(std::string_view name, RulerTrial trial) {
  if (name == "single-1" || name == "single-2") return needles_prompt(trial, {}, true);
  if (name == "single-3") return needles_prompt(trial, {.uuid_values = true}, true);
  if (name == "multi-key-1") return needles_prompt(trial, {.keys = 4}, true);
  if (name == "multi-key-2") return lines_prompt(trial, {});
  if (name == "multi-key-3") return lines_prompt(trial, {.uuid_keys = true, .uuid_values = true});
  if (name == "multi-value") return needles_prompt(trial, {.values = 4}, false);
  if (name == "multi-query") return needles_prompt(trial, {.keys = 4, .asked = 4}, false);
  if (name == "variables") return variables_prompt(trial);
  if (name == "common-words") return common_words_prompt(trial);
  return frequent_words_prompt(trial);
}

}  // namespace

std::span<const RulerTask> ruler_tasks() { return tasks; }

Result<RulerTask> find_ruler_task(std::string_view name) {
  const auto found = std::find_if(tasks.begin(), tasks.end(), [&](const RulerTask& task) { return task.name == name; });
  if (found != tasks.end()) return *found;
  std::string names;
  for (const RulerTask& task : tasks) names += (names.empty() ? "" : ", ") + std::string(task.name);
  return Status(Code::not_found, "there is no RULER task '" + std::string(name) + "'; known are " + names);
}

std::string ruler_text_name(RulerText text) {
  switch (text) {
    case RulerText::filler: return std::string(filler_name);
    case RulerText::corpus: return {};
    case RulerText::lines: return "lines";
    case RulerText::words: return "words";
  }
  return {};
}

Result<Prompt> framed(const RulerTrial& trial, const RulerFrame& frame) {
  Prompt prompt;
  prompt.trial = trial.trial;
  prompt.expected = frame.expected;
  prompt.answer_room = frame.answer_room;
  if (trial.chat) {
    BOUGH_ASSIGN_OR_RETURN(SplitPrompt around, trial.engine.chat_prompt_around_text(frame.question));
    prompt.text = std::move(around.before);
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> introduction, trial.engine.tokenize(frame.introduction, false));
    append_to(prompt.text, introduction);
    prompt.question = std::move(around.after);
    // The template ends a line before the answer: the blank that would divide it from the question goes.
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> lead, trial.engine.tokenize(frame.lead.substr(1), false));
    append_to(prompt.question, lead);
    return prompt;
  }
  BOUGH_ASSIGN_OR_RETURN(prompt.text, trial.engine.tokenize(frame.introduction));
  BOUGH_ASSIGN_OR_RETURN(prompt.question, trial.engine.tokenize("\n\n" + frame.question + frame.lead, false));
  return prompt;
}

Result<std::vector<Prompt>> ruler_prompts(const Engine& engine, const RulerTask& task, const Corpus& corpus, const TrialSet& set,
                                          bool chat) {
  const auto number = std::find_if(tasks.begin(), tasks.end(), [&](const RulerTask& t) { return t.name == task.name; }) - tasks.begin();
  const auto stops = full_stops(engine);
  std::vector<Prompt> prompts;
  for (int trial = set.first(); trial < set.first() + set.trials; ++trial) {
    const uint64_t stream = static_cast<uint64_t>(number + 1) << 32 | static_cast<uint64_t>(trial);
    BOUGH_ASSIGN_OR_RETURN(Prompt prompt, task_prompt(task.name, {.engine = engine,
                                                                  .corpus = corpus,
                                                                  .ends_sentence = stops,
                                                                  .set = set,
                                                                  .trial = trial,
                                                                  .chat = chat,
                                                                  .random = Random(set.seed, stream)}));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace bough::eval
