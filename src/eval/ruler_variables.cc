// RULER's variable tracking: a number is set once, and names take it from each other.
#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/ruler_parts.h"

namespace bough::eval {
namespace {

constexpr std::string_view introduction =
    "Variables are set inside the following text. Keep track of the value of each, also where one takes the value of another.\n\n";
constexpr size_t chain = 5;  // the first is set to the number; four hops follow
constexpr int64_t answer_room = 30;
constexpr int name_letters = 5;

// Different names of equal length, so that no one is a part of another.
std::vector<std::string> variable_names(Random& random) {
  std::set<std::string> taken;
  std::vector<std::string> names;
  while (names.size() < chain) {
    std::string name;
    for (int i = 0; i < name_letters; ++i) name += static_cast<char>('A' + random.below(26));
    if (taken.insert(name).second) names.push_back(name);
  }
  return names;
}

}  // namespace

Result<Prompt> variables_prompt(RulerTrial trial) {
  const std::vector<std::string> names = variable_names(trial.random);
  const std::string number = std::to_string(10'000 + trial.random.below(90'000));
  std::vector<double> depths(chain);
  for (double& depth : depths) depth = static_cast<double>(trial.random.below(10'000)) / 10'000;
  std::sort(depths.begin(), depths.end());  // a variable is set before another takes its value
  std::vector<Needle> hidden;
  int64_t needle_tokens = 0;
  for (size_t i = 0; i < chain; ++i) {
    const std::string& value = i == 0 ? number : names[i - 1];
    Needle needle{.depth = depths[i]};
    BOUGH_ASSIGN_OR_RETURN(needle.tokens, trial.engine.tokenize(" Set the variable " + names[i] + " to " + value + ".", false));
    needle_tokens += static_cast<int64_t>(needle.tokens.size());
    hidden.push_back(std::move(needle));
  }
  const RulerFrame frame{.introduction = introduction,
                         .question = "Which " + std::to_string(chain) + " variables have the value " + number +
                                     ", whether set to it or to a variable that has it?",
                         .lead = " The variables that have the value " + number + " are",
                         .expected = names,
                         .answer_room = answer_room};
  BOUGH_ASSIGN_OR_RETURN(Prompt prompt, framed(trial, frame));
  prompt.key = number;
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, needle_tokens, trial.set.length));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> haystack, trial_haystack(trial.corpus, trial.set, trial.trial, room));
  append_to(prompt.text, weave(haystack, hidden, trial.ends_sentence).tokens);
  return prompt;
}

}  // namespace bough::eval
