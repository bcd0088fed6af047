// Prompts of named keys and of the RULER tasks: the same for a seed, within their length, with one answer in the text.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "eval/keys.h"
#include "eval/passkey.h"
#include "eval/ruler.h"
#include "eval/words.h"
#include "support/english.h"
#include "support/tiny_engine.h"

namespace bough::eval {
namespace {

// The tiny vocabulary has little but bytes: a token is about a character.
constexpr int64_t length = 8000;

size_t count_of(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::vector<std::string> all_matches(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> matches;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) matches.push_back((*at)[1].str());
  return matches;
}

class Prompts : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    file_ = new test::TinyFile(test::peaked_model());
    engine_ = file_->engine("dense").release();
    corpus_ = new Corpus(*text_corpus(*engine_, "english", test::english_text(20'000)));
  }
  static void TearDownTestSuite() {
    delete corpus_;
    delete engine_;
    delete file_;
  }

  static std::string text_of(const std::vector<TokenId>& tokens) { return *engine_->detokenize(tokens); }
  static std::string text_of(const Prompt& prompt) { return text_of(prompt.text); }
  static std::string question_of(const Prompt& prompt) { return text_of(prompt.question); }
  static std::string needle_of(const Prompt& prompt) {
    const auto from = prompt.text.begin() + prompt.needle;
    return text_of({from, from + prompt.needle_tokens});
  }

  static std::vector<Prompt> keys(const TrialSet& set, int count) {
    auto prompts = keys_prompts(*engine_, *corpus_, set, count);
    EXPECT_TRUE(prompts.ok()) << prompts.status().message();
    return prompts.ok() ? *prompts : std::vector<Prompt>();
  }
  static std::vector<Prompt> ruler(std::string_view name, const TrialSet& set, bool chat = false) {
    const RulerTask task = *find_ruler_task(name);
    auto prompts = ruler_prompts(*engine_, task, *corpus_, set, chat);
    EXPECT_TRUE(prompts.ok()) << name << ": " << prompts.status().message();
    return prompts.ok() ? *prompts : std::vector<Prompt>();
  }

  static test::TinyFile* file_;
  static Engine* engine_;
  static Corpus* corpus_;
};

test::TinyFile* Prompts::file_ = nullptr;
Engine* Prompts::engine_ = nullptr;
Corpus* Prompts::corpus_ = nullptr;

TEST(Words, NoneIsAPartOfAnother) {
  EXPECT_EQ(first_names().size(), 128u);
  for (const std::string_view a : first_names()) {
    for (const std::string_view b : first_names()) EXPECT_TRUE(a == b || b.substr(0, a.size()) != a) << a << " " << b;
  }
  std::set<std::string> pairs;
  std::set<std::string> adjectives;
  std::set<std::string> nouns;
  for (int64_t i = 0; i < word_pairs(); ++i) {
    const std::string pair = word_pair(i);
    EXPECT_TRUE(pairs.insert(pair).second) << pair;
    const size_t hyphen = pair.find('-');
    adjectives.insert(pair.substr(0, hyphen));
    nouns.insert(pair.substr(hyphen + 1));
  }
  EXPECT_GE(pairs.size(), 30'000u);
  for (const std::string& a : adjectives) {
    for (const std::string& b : adjectives) {
      EXPECT_TRUE(a == b || a.size() > b.size() || b.substr(b.size() - a.size()) != a) << a << " ends " << b;
    }
  }
  for (const std::string& a : nouns) {
    for (const std::string& b : nouns) EXPECT_TRUE(a == b || b.substr(0, a.size()) != a) << a << " begins " << b;
  }
  EXPECT_EQ(std::set<std::string>({word_triple(0), word_triple(1), word_triple(word_pairs()), word_triple(word_triples() - 1)}).size(), 4u);
}

TEST_F(Prompts, PasskeysAreHiddenOnceAndAskedFor) {
  const TrialSet set{.length = 2000, .trials = 2, .depths = 3, .band = 1, .seed = 4};
  const auto prompts = passkey_prompts(*engine_, *corpus_, set);
  ASSERT_TRUE(prompts.ok()) << prompts.status().message();
  ASSERT_EQ(prompts->size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const Prompt& prompt = (*prompts)[i];
    const int trial = 2 + static_cast<int>(i);
    EXPECT_EQ(prompt.trial, trial);
    EXPECT_EQ(prompt.key, passkey_of(4, trial));
    EXPECT_EQ(prompt.text.size() + prompt.question.size(), 2000u);
    EXPECT_EQ(needle_of(prompt), " The pass key is " + prompt.key + ". Remember it. " + prompt.key + " is the pass key.");
    EXPECT_EQ(count_of(text_of(prompt), prompt.key), 2u);
    EXPECT_EQ(question_of(prompt) + text_of(prompt.answer), "\n\nWhat is the pass key? The pass key is " + prompt.key);
    EXPECT_NEAR(static_cast<double>(prompt.needle) / 2000, (trial + 0.5) / 6, 0.08);
  }
}

TEST_F(Prompts, NamedKeysAreAllThereAndDifferent) {
  const std::regex sentence(R"( The pass key of (\w+ is \d{5})\.)");
  for (const int count : {1, 8, 128}) {
    const std::vector<Prompt> prompts = keys({.length = length, .trials = 4, .seed = 1}, count);
    ASSERT_EQ(prompts.size(), 4u);
    for (int trial = 0; trial < 4; ++trial) {
      const Prompt& prompt = prompts[static_cast<size_t>(trial)];
      EXPECT_LE(prompt.text.size() + prompt.question.size(), static_cast<size_t>(length));
      EXPECT_GE(prompt.text.size() + prompt.question.size(), static_cast<size_t>(length - 20));
      const std::vector<std::string> found = all_matches(text_of(prompt), sentence);
      ASSERT_EQ(found.size(), static_cast<size_t>(count));
      std::set<std::string> names;
      std::set<std::string> digits;
      for (const std::string& f : found) {
        names.insert(f.substr(0, f.find(' ')));
        digits.insert(f.substr(f.size() - 5));
      }
      EXPECT_EQ(names.size(), found.size());
      EXPECT_EQ(digits.size(), found.size());
      const std::string asked = question_of(prompt) + text_of(prompt.answer);
      const auto place = static_cast<size_t>((trial + 0.5) / 4 * count);
      EXPECT_EQ(asked, "\n\nThe pass key of " + found[place]) << "names stand in the order in which trials ask for them";
      EXPECT_EQ(needle_of(prompt), " The pass key of " + found[place] + ".");
    }
  }
}

TEST_F(Prompts, InOneHaystackNamedKeysShareTheirText) {
  const std::vector<Prompt> shared = keys({.length = 3000, .trials = 4, .one_haystack = true}, 8);
  ASSERT_EQ(shared.size(), 4u);
  for (const Prompt& prompt : shared) {
    EXPECT_EQ(prompt.text, shared[0].text);
    EXPECT_EQ(prompt.round, 0);
  }
  EXPECT_NE(question_of(shared[0]), question_of(shared[1]));
  // Twice as many trials as keys: the second trial of a name has a text of its own.
  const std::vector<Prompt> twice = keys({.length = 3000, .trials = 4, .one_haystack = true}, 2);
  ASSERT_EQ(twice.size(), 4u);
  EXPECT_EQ(twice[0].round, 0);
  EXPECT_EQ(twice[1].round, 1);
  EXPECT_EQ(twice[2].round, 0);
  EXPECT_EQ(twice[0].text, twice[2].text);
  EXPECT_NE(twice[0].text, twice[1].text);
  EXPECT_NE(keys({.length = 3000, .trials = 2}, 8)[1].text, keys({.length = 3000, .trials = 2}, 8)[0].text);
}

TEST_F(Prompts, NamedKeysThatCannotBe) {
  const auto many = keys_prompts(*engine_, *corpus_, {.length = length}, 129);
  ASSERT_FALSE(many.ok());
  EXPECT_NE(many.status().message().find("1 to 128 named keys, not 129"), std::string::npos) << many.status().message();
  const auto short_prompt = keys_prompts(*engine_, *corpus_, {.length = 500}, 32);
  ASSERT_FALSE(short_prompt.ok());
  EXPECT_NE(short_prompt.status().message().find("500 tokens is too short"), std::string::npos) << short_prompt.status().message();
}

TEST_F(Prompts, ASeedDecidesEverything) {
  const TrialSet set{.length = length, .trials = 2, .seed = 7};
  TrialSet other = set;
  other.seed = 8;
  const auto same = [](const std::vector<Prompt>& a, const std::vector<Prompt>& b) {
    return a[0].text == b[0].text && a[0].question == b[0].question && a[0].expected == b[0].expected && a[0].answer == b[0].answer;
  };
  EXPECT_TRUE(same(keys(set, 8), keys(set, 8)));
  EXPECT_FALSE(same(keys(set, 8), keys(other, 8)));
  std::set<std::vector<std::string>> answers;
  for (const RulerTask& task : ruler_tasks()) {
    const std::vector<Prompt> prompts = ruler(task.name, set);
    EXPECT_TRUE(same(prompts, ruler(task.name, set))) << task.name;
    EXPECT_FALSE(same(prompts, ruler(task.name, other))) << task.name;
    answers.insert(prompts[0].expected);
    answers.insert(prompts[1].expected);
  }
  EXPECT_EQ(answers.size(), 2 * ruler_tasks().size()) << "tasks and trials draw for themselves";
}

TEST_F(Prompts, RulerPromptsFillTheirLength) {
  for (const RulerTask& task : ruler_tasks()) {
    for (const int64_t tokens : {int64_t{3000}, length}) {
      const std::vector<Prompt> prompts = ruler(task.name, {.length = tokens, .trials = 2, .seed = 3});
      ASSERT_EQ(prompts.size(), 2u);
      for (const Prompt& prompt : prompts) {
        const int64_t used = static_cast<int64_t>(prompt.text.size() + prompt.question.size()) + prompt.answer_room;
        EXPECT_LE(used, tokens) << task.name;
        EXPECT_GE(used, tokens * 95 / 100) << task.name;
        EXPECT_GT(prompt.answer_room, 0);
        EXPECT_TRUE(prompt.answer.empty());
        EXPECT_EQ(prompt.needle_tokens > 0, task.by_depth) << task.name;
      }
    }
  }
}

// Everything expected stands in the text and not in the question, which would give it away.
TEST_F(Prompts, RulerAnswersAreInTheText) {
  const std::map<std::string_view, size_t> answers = {{"single-1", 1},    {"single-2", 1},      {"single-3", 1},      {"multi-key-1", 1},
                                                      {"multi-key-2", 1}, {"multi-key-3", 1},   {"multi-value", 4},   {"multi-query", 4},
                                                      {"variables", 5},   {"common-words", 10}, {"frequent-words", 3}};
  ASSERT_EQ(ruler_tasks().size(), answers.size());
  for (const RulerTask& task : ruler_tasks()) {
    for (const Prompt& prompt : ruler(task.name, {.length = length, .trials = 3, .seed = 5})) {
      EXPECT_EQ(prompt.expected.size(), answers.at(task.name)) << task.name;
      const std::string text = text_of(prompt);
      for (const std::string& answer : prompt.expected) {
        EXPECT_GE(count_of(text, answer), 1u) << task.name << ": " << answer;
        EXPECT_EQ(count_of(question_of(prompt), answer), 0u) << task.name << ": " << answer;
        for (const std::string& other : prompt.expected) EXPECT_TRUE(answer == other || other.find(answer) == std::string::npos);
      }
    }
  }
}

TEST_F(Prompts, RulerNeedlesHaveOneValueForAKey) {
  struct Kind {
    const char* name;
    size_t sentences;  // 0: as many as fit
    size_t keys;
    const char* value;
  };
  for (const Kind& kind : {Kind{"single-1", 1, 1, R"(\d{7})"}, Kind{"single-2", 1, 1, R"(\d{7})"},
                           Kind{"single-3", 1, 1, "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"}, Kind{"multi-key-1", 4, 4, R"(\d{7})"},
                           Kind{"multi-key-2", 0, 0, R"(\d{7})"}, Kind{"multi-key-3", 0, 0, "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"},
                           Kind{"multi-value", 4, 1, R"(\d{7})"}, Kind{"multi-query", 4, 4, R"(\d{7})"}}) {
    const std::regex sentence("access code of (\\S+ is " + std::string(kind.value) + ")\\.");
    const std::vector<Prompt> prompts = ruler(kind.name, {.length = length, .trials = 2, .seed = 2});
    for (const Prompt& prompt : prompts) {
      const std::vector<std::string> found = all_matches(text_of(prompt), sentence);
      std::map<std::string, std::vector<std::string>> values;
      std::set<std::string> different;
      for (const std::string& f : found) {
        const std::string key = f.substr(0, f.find(' '));
        values[key].push_back(f.substr(f.find(" is ") + 4));
        different.insert(values[key].back());
      }
      EXPECT_EQ(different.size(), found.size()) << kind.name << ": all values differ";
      if (kind.sentences > 0) {
        EXPECT_EQ(found.size(), kind.sentences) << kind.name;
        EXPECT_EQ(values.size(), kind.keys) << kind.name;
      } else {
        EXPECT_EQ(values.size(), found.size()) << kind.name << ": all keys differ";
        EXPECT_GT(found.size(), 50u) << kind.name;
      }
      // What the question names has the expected values and no other.
      std::vector<std::string> asked;
      for (const auto& [key, of_key] : values) {
        if (question_of(prompt).find(" " + key) != std::string::npos) asked.insert(asked.end(), of_key.begin(), of_key.end());
      }
      std::vector<std::string> expected = prompt.expected;
      std::sort(asked.begin(), asked.end());
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(asked, expected) << kind.name;
      EXPECT_EQ(prompt.needle_tokens > 0 && needle_of(prompt).find(prompt.expected[0]) != std::string::npos, prompt.expected.size() == 1)
          << kind.name;
    }
  }
}

TEST_F(Prompts, RulerNeedlesFollowTheirDepth) {
  for (const RulerTask& task : ruler_tasks()) {
    if (!task.by_depth) continue;
    const std::vector<Prompt> prompts = ruler(task.name, {.length = length, .trials = 2, .depths = 4, .band = 3, .seed = 2});
    ASSERT_EQ(prompts.size(), 2u);
    EXPECT_NEAR(static_cast<double>(prompts[0].needle) / static_cast<double>(length), 6.5 / 8, 0.06) << task.name;
    EXPECT_NEAR(static_cast<double>(prompts[1].needle) / static_cast<double>(length), 7.5 / 8, 0.06) << task.name;
  }
}

TEST_F(Prompts, VariablesTakeEachOthersValueInOrder) {
  const std::regex sentence(R"( Set the variable ([A-Z]{5} to \w+)\.)");
  for (const Prompt& prompt : ruler("variables", {.length = length, .trials = 5, .seed = 9})) {
    const std::vector<std::string> found = all_matches(text_of(prompt), sentence);
    ASSERT_EQ(found.size(), 5u);
    std::string value = prompt.key;
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(found[i], prompt.expected[i] + " to " + value);
      value = prompt.expected[i];
    }
    EXPECT_NE(question_of(prompt).find(prompt.key), std::string::npos);
  }
}

TEST_F(Prompts, CommonWordsAreTenTimesAsCommon) {
  for (const int64_t tokens : {int64_t{3000}, int64_t{20'000}}) {
    const std::vector<Prompt> prompts = ruler("common-words", {.length = tokens, .trials = 2, .seed = 1});
    for (const Prompt& prompt : prompts) {
      const std::string text = text_of(prompt);
      std::map<std::string, int> counts;
      for (const std::string& word : all_matches(text, std::regex(R"( \d+\. ([a-z]+-[a-z]+))"))) ++counts[word];
      const int repeats = tokens == 3000 ? 1 : 3;
      std::set<std::string> common;
      for (const auto& [word, count] : counts) {
        EXPECT_TRUE(count == repeats || count == 10 * repeats) << word << " comes " << count << " times";
        if (count == 10 * repeats) common.insert(word);
      }
      EXPECT_EQ(common, std::set<std::string>(prompt.expected.begin(), prompt.expected.end()));
      EXPECT_GE(counts.size(), 20u);
      EXPECT_NE(text.find(" 1. "), std::string::npos);
    }
  }
}

TEST_F(Prompts, FrequentWordsLeadTheOthers) {
  for (const Prompt& prompt : ruler("frequent-words", {.length = length, .trials = 2, .seed = 1})) {
    std::map<std::string, int> counts;
    std::istringstream words(text_of(prompt).substr(text_of(prompt).find("\n\n")));
    for (std::string word; words >> word;) ++counts[word];
    const int dots = counts["..."];
    counts.erase("...");
    int least = dots;
    for (const std::string& expected : prompt.expected) {
      least = std::min(least, counts[expected]);
      counts.erase(expected);
    }
    EXPECT_LT(least, dots);
    for (const auto& [word, count] : counts) EXPECT_LT(count, least) << word;
    EXPECT_GE(counts.size(), 5u);
  }
}

TEST_F(Prompts, ChatPromptsEndWithTheLead) {
  for (const RulerTask& task : ruler_tasks()) {
    const TrialSet set{.length = length, .trials = 1, .seed = 1};
    const Prompt plain = ruler(task.name, set)[0];
    const Prompt chat = ruler(task.name, set, true)[0];
    const std::string lead = question_of(plain).substr(question_of(plain).find("? ") + 2);
    const std::string question = *engine_->detokenize(chat.question, true);
    EXPECT_EQ(question.substr(question.size() - lead.size()), lead) << task.name;
    EXPECT_EQ(question[question.size() - lead.size() - 1], '\n') << task.name << ": the answer's first words";
    EXPECT_NE(question.find("<|im_end|>"), std::string::npos) << task.name;
    EXPECT_EQ(chat.expected, plain.expected) << task.name;
    EXPECT_LE(static_cast<int64_t>(chat.text.size() + chat.question.size()) + chat.answer_room, length) << task.name;
  }
}

TEST_F(Prompts, RulerPromptsThatAreTooShort) {
  for (const RulerTask& task : ruler_tasks()) {
    for (const int64_t tokens : {int64_t{1}, int64_t{500}}) {
      const auto prompts = ruler_prompts(*engine_, task, *corpus_, {.length = tokens, .trials = 1}, false);
      if (prompts.ok()) continue;  // one needle fits 500 tokens
      EXPECT_NE(prompts.status().message().find(std::to_string(tokens) + " tokens is too short"), std::string::npos)
          << task.name << ": " << prompts.status().message();
    }
    EXPECT_FALSE(ruler_prompts(*engine_, task, *corpus_, {.length = 200, .trials = 1}, false).ok()) << task.name;
  }
  const auto unknown = find_ruler_task("qa-1");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("'qa-1'; known are single-1, "), std::string::npos) << unknown.status().message();
}

}  // namespace
}  // namespace bough::eval
