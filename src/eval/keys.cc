// Prompts of the named keys.
#include "eval/keys.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/random.h"
#include "eval/words.h"

namespace bough::eval {
namespace {

constexpr std::string_view introduction =
    "There are important pass keys of many people hidden inside a lot of text. Find them and memorize them. I will quiz you about one of "
    "them.\n\n";

struct NamedKey {
  std::string name;
  std::string key;
};

// Which names, in which order, with which keys: a function of seed and text number only. All names and all keys differ.
std::vector<NamedKey> named_keys(uint64_t seed, int text, int count) {
  Random random(seed, static_cast<uint64_t>(text));
  std::vector<std::string_view> names(first_names().begin(), first_names().end());
  random.shuffle(names);
  std::set<uint64_t> taken;
  std::vector<NamedKey> keys;
  while (keys.size() < static_cast<size_t>(count)) {
    const uint64_t key = 10'000 + random.below(90'000);
    if (taken.insert(key).second) keys.push_back({std::string(names[keys.size()]), std::to_string(key)});
  }
  return keys;
}

std::string question_for(const NamedKey& key) { return "\n\nThe pass key of " + key.name + " is"; }

// Tokens of the longest question that a text allows: the text is the same whichever is asked.
Result<int64_t> longest_question(const Engine& engine, std::span<const NamedKey> keys) {
  size_t most = 0;
  for (const NamedKey& key : keys) {
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> question, engine.tokenize(question_for(key), false));
    most = std::max(most, question.size());
  }
  return static_cast<int64_t>(most);
}

Result<Prompt> keys_prompt(const Engine& engine, const Corpus& corpus, const TrialSet& set, int count, int trial, int asked, int text,
                           const std::function<bool(TokenId)>& stops) {
  const std::vector<NamedKey> keys = named_keys(set.seed, text, count);
  std::vector<Needle> needles;
  int64_t needle_tokens = 0;
  for (int j = 0; j < count; ++j) {
    const NamedKey& named = keys[static_cast<size_t>(j)];
    Needle needle{.depth = (j + 0.5) / count};
    BOUGH_ASSIGN_OR_RETURN(needle.tokens, engine.tokenize(" The pass key of " + named.name + " is " + named.key + ".", false));
    needle_tokens += static_cast<int64_t>(needle.tokens.size());
    needles.push_back(std::move(needle));
  }
  const auto wanted = static_cast<size_t>(asked);
  Prompt prompt;
  prompt.trial = trial;
  prompt.round = set.one_haystack ? text : 0;
  prompt.key = keys[wanted].name + " " + keys[wanted].key;
  BOUGH_ASSIGN_OR_RETURN(prompt.text, engine.tokenize(introduction));
  BOUGH_ASSIGN_OR_RETURN(prompt.question, engine.tokenize(question_for(keys[wanted]), false));
  BOUGH_ASSIGN_OR_RETURN(const int64_t longest, longest_question(engine, keys));
  const int64_t spared = longest - static_cast<int64_t>(prompt.question.size());
  BOUGH_RETURN_IF_ERROR(set_answer(engine, keys[wanted].key, prompt));
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, needle_tokens + spared, set.length));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> haystack, trial_haystack(corpus, set, trial, room));
  const Woven woven = weave(haystack, needles, stops);
  prompt.needle = static_cast<int64_t>(prompt.text.size()) + woven.places[wanted];
  prompt.needle_tokens = static_cast<int64_t>(needles[wanted].tokens.size());
  append_to(prompt.text, woven.tokens);
  return prompt;
}

}  // namespace

Result<std::vector<Prompt>> keys_prompts(const Engine& engine, const Corpus& corpus, const TrialSet& set, int keys) {
  const auto most = static_cast<int>(first_names().size());
  if (keys < 1 || keys > most) {
    return Status(Code::invalid_argument, "a text can have 1 to " + std::to_string(most) + " named keys, not " + std::to_string(keys));
  }
  const auto stops = full_stops(engine);
  const auto asked_in = [&](int trial) { return static_cast<int>(set.depth(trial) * keys); };
  std::vector<Prompt> prompts;
  for (int trial = set.first(); trial < set.first() + set.trials; ++trial) {
    // In one haystack a text serves one trial of each name; a name's second trial needs a second text.
    int text = trial;
    if (set.one_haystack) {
      text = 0;
      while (trial - text > 0 && asked_in(trial - text - 1) == asked_in(trial)) ++text;
    }
    BOUGH_ASSIGN_OR_RETURN(Prompt prompt, keys_prompt(engine, corpus, set, keys, trial, asked_in(trial), text, stops));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace bough::eval
