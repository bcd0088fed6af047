// RULER's retrieval tasks: keys with values hidden in a text, or in a text of nothing else.
#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/ruler_parts.h"
#include "eval/words.h"

namespace bough::eval {
namespace {

constexpr std::string_view introduction =
    "Access codes are hidden inside the following text. Memorize them: you will be asked for some.\n\n";
constexpr std::string_view lines_introduction = "The following lines are access codes. Memorize them: you will be asked for one.\n";
constexpr int64_t answer_room = 128;
constexpr int64_t line_tokens = 12;  // fewer than a line has in any vocabulary with whole words
constexpr int fewest_lines = 4;

std::string uuid(Random& random) {
  char text[40];
  const uint64_t a = random.next();
  const uint64_t b = random.next();
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%012llx", static_cast<unsigned>(a >> 32), static_cast<unsigned>(a >> 16 & 0xFFFF),
                static_cast<unsigned>(a & 0xFFFF), static_cast<unsigned>(b >> 48), static_cast<unsigned long long>(b & 0xFFFF'FFFF'FFFF));
  return text;
}

// Draws keys and values, all different.
class Codes {
 public:
  // `many`: more keys are wanted than pairs of words make.
  Codes(Random& random, const RulerNeedles& kind, bool many) : random_(random), kind_(kind), many_(many) {}

  std::string key() {
    return fresh([&] {
      if (kind_.uuid_keys) return uuid(random_);
      if (many_) return word_triple(static_cast<int64_t>(random_.below(static_cast<uint64_t>(word_triples()))));
      return word_pair(static_cast<int64_t>(random_.below(static_cast<uint64_t>(word_pairs()))));
    });
  }
  std::string value() {
    return fresh([&] { return kind_.uuid_values ? uuid(random_) : std::to_string(1'000'000 + random_.below(9'000'000)); });
  }

 private:
  template <typename Draw>
  std::string fresh(Draw draw) {
    std::string text = draw();
    while (!taken_.insert(text).second) text = draw();
    return text;
  }

  Random& random_;
  const RulerNeedles& kind_;
  bool many_;
  std::set<std::string> taken_;
};

std::string listed(const std::vector<std::string>& words) {
  std::string text = words.front();
  for (size_t i = 1; i < words.size(); ++i) {
    text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  return text;
}

RulerFrame frame_for(const std::vector<std::string>& keys, std::vector<std::string> values, std::string_view before) {
  const std::string what = std::string(values.size() > 1 ? "access codes" : "access code") + " of " + listed(keys);
  const std::string verb = values.size() > 1 ? " are" : " is";
  const std::string all = values.size() > keys.size() ? " all the " : " the ";
  return {.introduction = before,
          .question = "What" + verb + all + what + "?",
          .lead = " The " + what + verb,
          .expected = std::move(values),
          .answer_room = answer_room};
}

std::string sentence(std::string_view article, const std::string& key, const std::string& value) {
  std::string text(article);
  return text.append(" access code of ").append(key).append(" is ").append(value).append(".");
}

Result<std::vector<TokenId>> line_of(const RulerTrial& trial, const std::string& key, const std::string& value) {
  return trial.engine.tokenize(sentence("\nThe", key, value), false);
}

}  // namespace

Result<Prompt> needles_prompt(RulerTrial trial, const RulerNeedles& needles, bool by_depth) {
  Codes codes(trial.random, needles, false);
  std::vector<std::string> asked;
  std::vector<std::string> expected;
  std::vector<Needle> hidden;
  int64_t needle_tokens = 0;
  for (int k = 0; k < needles.keys; ++k) {
    const std::string key = codes.key();
    if (k < needles.asked) asked.push_back(key);
    for (int v = 0; v < needles.values; ++v) {
      const std::string value = codes.value();
      if (k < needles.asked) expected.push_back(value);
      Needle needle{.depth = static_cast<double>(trial.random.below(10'000)) / 10'000};
      if (by_depth && hidden.empty()) needle.depth = trial.set.depth(trial.trial);
      BOUGH_ASSIGN_OR_RETURN(needle.tokens, trial.engine.tokenize(sentence(needles.values > 1 ? " One" : " The", key, value), false));
      needle_tokens += static_cast<int64_t>(needle.tokens.size());
      hidden.push_back(std::move(needle));
    }
  }
  BOUGH_ASSIGN_OR_RETURN(Prompt prompt, framed(trial, frame_for(asked, std::move(expected), introduction)));
  prompt.key = listed(asked);
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, needle_tokens, trial.set.length));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> haystack, trial_haystack(trial.corpus, trial.set, trial.trial, room));
  const Woven woven = weave(haystack, hidden, trial.ends_sentence);
  if (by_depth) {
    prompt.needle = static_cast<int64_t>(prompt.text.size()) + woven.places.front();
    prompt.needle_tokens = static_cast<int64_t>(hidden.front().tokens.size());
  }
  append_to(prompt.text, woven.tokens);
  return prompt;
}

Result<Prompt> lines_prompt(RulerTrial trial, const RulerNeedles& needles) {
  Codes codes(trial.random, needles, trial.set.length / line_tokens > word_pairs() / 2);
  const std::string key = codes.key();
  const std::string value = codes.value();
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> asked, line_of(trial, key, value));
  BOUGH_ASSIGN_OR_RETURN(Prompt prompt, framed(trial, frame_for({key}, {value}, lines_introduction)));
  prompt.key = key;
  prompt.needle_tokens = static_cast<int64_t>(asked.size());
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, prompt.needle_tokens, trial.set.length));
  std::vector<std::vector<TokenId>> lines;
  int64_t filled = 0;
  while (true) {
    const std::string other = codes.key();
    BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> line, line_of(trial, other, codes.value()));
    if (filled + static_cast<int64_t>(line.size()) > room) break;
    filled += static_cast<int64_t>(line.size());
    lines.push_back(std::move(line));
  }
  if (lines.size() + 1 < fewest_lines) {
    return Status(Code::invalid_argument, "a prompt of " + std::to_string(trial.set.length) + " tokens is too short: it holds " +
                                              std::to_string(lines.size() + 1) + " lines, and at least " + std::to_string(fewest_lines) +
                                              " are needed");
  }
  const auto place = static_cast<size_t>(trial.set.depth(trial.trial) * static_cast<double>(lines.size() + 1));
  lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(place), asked);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i == place) prompt.needle = static_cast<int64_t>(prompt.text.size());
    append_to(prompt.text, lines[i]);
  }
  return prompt;
}

}  // namespace bough::eval
