// Prompts of the passkey task.
#include "eval/passkey.h"

#include <span>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/random.h"

namespace bough::eval {
namespace {

constexpr std::string_view introduction =
    "There is an important pass key hidden inside a lot of text. Find it and memorize it. I will quiz you about it.\n\n";
constexpr std::string_view question = "\n\nWhat is the pass key? The pass key is";

}  // namespace

std::string passkey_of(uint64_t seed, int trial) {
  return std::to_string(10'000 + Random(seed, static_cast<uint64_t>(trial)).below(90'000));
}

Result<std::vector<Prompt>> passkey_prompts(const Engine& engine, const Corpus& corpus, const TrialSet& set) {
  const auto stops = full_stops(engine);
  std::vector<Prompt> prompts;
  for (int trial = set.first(); trial < set.first() + set.trials; ++trial) {
    Prompt prompt;
    prompt.trial = trial;
    prompt.key = passkey_of(set.seed, trial);
    const std::string sentence = " The pass key is " + prompt.key + ". Remember it. " + prompt.key + " is the pass key.";
    BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> needle, engine.tokenize(sentence, false));
    BOUGH_ASSIGN_OR_RETURN(prompt.text, engine.tokenize(introduction));
    BOUGH_ASSIGN_OR_RETURN(prompt.question, engine.tokenize(question, false));
    BOUGH_RETURN_IF_ERROR(set_answer(engine, prompt.key, prompt));
    const auto introduced = static_cast<int64_t>(prompt.text.size());
    prompt.needle_tokens = static_cast<int64_t>(needle.size());
    BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, prompt.needle_tokens, set.length));
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> haystack, trial_haystack(corpus, set, trial, room));
    const Needle hidden{.depth = set.depth(trial), .tokens = std::move(needle)};
    const Woven woven = weave(haystack, std::span(&hidden, 1), stops);
    append_to(prompt.text, woven.tokens);
    prompt.needle = introduced + woven.places.front();
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace bough::eval
