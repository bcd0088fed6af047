// RULER's aggregation tasks: the words of a list that come most often, by a fixed share or by Zipf's law.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "base/check.h"
#include "eval/haystack.h"
#include "eval/ruler_parts.h"
#include "eval/words.h"

namespace bough::eval {
namespace {

constexpr std::string_view list_introduction =
    "Below is a numbered list of words, most of which come more than once. Memorize the words that come most often.\n\n";
constexpr int64_t common = 10;         // words asked for
constexpr int64_t common_factor = 10;  // they come so many times as often as the others
constexpr int64_t usual_repeats = 3;   // of another word
constexpr int64_t list_answer_room = 120;

constexpr std::string_view coded_introduction =
    "The following text is made of coded words and of dots. Dots do not count. Memorize the coded words that come most often.\n\n";
constexpr int64_t frequent = 3;          // words asked for
constexpr int64_t fewest_entries = 150;  // so that the ranks asked for and the next one differ in frequency
constexpr int coded_letters = 6;
constexpr int64_t coded_answer_room = 50;
constexpr double zeta_of_2 = 1.6449340668482264;

Status too_short(int64_t length, int64_t least) {
  return {Code::invalid_argument,
          "a prompt of " + std::to_string(length) + " tokens is too short for a list of at least " + std::to_string(least) + " words"};
}

int64_t size_of(const std::vector<TokenId>& tokens) { return static_cast<int64_t>(tokens.size()); }

// A numbered list that fits a number of tokens. Tokens of numbers and words are made when they are first needed.
class WordList {
 public:
  WordList(const Engine& engine, std::vector<int64_t> words) : engine_(engine), order_(std::move(words)) {}

  // How many other words fit beside the common ones, when each other word comes `repeats` times; negative when not even those fit.
  Result<int64_t> others_that_fit(int64_t room, int64_t repeats) {
    BOUGH_RETURN_IF_ERROR(make(common, common * common_factor * repeats));
    for (int64_t i = 0; i < common; ++i) room -= common_factor * repeats * size_of(word(i));
    for (int64_t i = 0; i < common * common_factor * repeats; ++i) room -= size_of(number(i));
    for (int64_t others = 0;; ++others) {
      if (room < 0) return others - 1;
      if (common + others == static_cast<int64_t>(order_.size())) return others;
      const int64_t entries = common * common_factor * repeats + others * repeats;
      BOUGH_RETURN_IF_ERROR(make(common + others + 1, entries + repeats));
      room -= repeats * size_of(word(common + others));
      for (int64_t i = entries; i < entries + repeats; ++i) room -= size_of(number(i));
    }
  }

  // The text of the list, its entries in an order drawn from `random`. REQUIRES: others_that_fit(room, repeats) >= others.
  std::vector<TokenId> text(int64_t others, int64_t repeats, Random& random) const {
    std::vector<int64_t> entries;
    for (int64_t w = 0; w < common + others; ++w)
      entries.insert(entries.end(), static_cast<size_t>(w < common ? common_factor * repeats : repeats), w);
    random.shuffle(entries);
    std::vector<TokenId> tokens;
    for (size_t i = 0; i < entries.size(); ++i) {
      append_to(tokens, number(static_cast<int64_t>(i)));
      append_to(tokens, word(entries[i]));
    }
    return tokens;
  }

  std::vector<std::string> common_words() const {
    std::vector<std::string> words;
    for (size_t i = 0; i < common; ++i) words.push_back(word_pair(order_[i]));
    return words;
  }
  int64_t most_others() const { return static_cast<int64_t>(order_.size()) - common; }

 private:
  const std::vector<TokenId>& word(int64_t i) const { return words_[static_cast<size_t>(i)]; }
  const std::vector<TokenId>& number(int64_t i) const { return numbers_[static_cast<size_t>(i)]; }

  Status make(int64_t words, int64_t numbers) {
    while (static_cast<int64_t>(words_.size()) < words) {
      BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, engine_.tokenize(" " + word_pair(order_[words_.size()]), false));
      words_.push_back(std::move(tokens));
    }
    while (static_cast<int64_t>(numbers_.size()) < numbers) {
      BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, engine_.tokenize(" " + std::to_string(numbers_.size() + 1) + ".", false));
      numbers_.push_back(std::move(tokens));
    }
    return {};
  }

  const Engine& engine_;
  std::vector<int64_t> order_;  // numbers of word pairs, the common ones first
  std::vector<std::vector<TokenId>> words_;
  std::vector<std::vector<TokenId>> numbers_;
};

// Different words of equal length, so that no one is a part of another.
std::vector<std::string> coded_words(Random& random, int64_t count) {
  std::set<std::string> taken;
  std::vector<std::string> words;
  while (static_cast<int64_t>(words.size()) < count) {
    std::string word;
    for (int i = 0; i < coded_letters; ++i) word += static_cast<char>('a' + random.below(26));
    if (taken.insert(word).second) words.push_back(word);
  }
  return words;
}

// How often the word of rank 1, 2, ... comes among about `entries`.
int64_t zipf_count(int64_t entries, int64_t rank) {
  return static_cast<int64_t>(static_cast<double>(entries) / zeta_of_2 / static_cast<double>(rank * rank));
}

int64_t zipf_ranks(int64_t entries) { return static_cast<int64_t>(std::sqrt(static_cast<double>(entries) / zeta_of_2)) + 1; }

}  // namespace

Result<Prompt> common_words_prompt(RulerTrial trial) {
  std::vector<int64_t> order(static_cast<size_t>(word_pairs()));
  std::iota(order.begin(), order.end(), int64_t{0});
  trial.random.shuffle(order);
  WordList list(trial.engine, std::move(order));
  const RulerFrame frame{.introduction = list_introduction,
                         .question = "Which " + std::to_string(common) + " words come most often in the list?",
                         .lead = " The " + std::to_string(common) + " words that come most often are",
                         .expected = list.common_words(),
                         .answer_room = list_answer_room};
  BOUGH_ASSIGN_OR_RETURN(Prompt prompt, framed(trial, frame));
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, 0, trial.set.length));
  int64_t repeats = usual_repeats;
  BOUGH_ASSIGN_OR_RETURN(int64_t others, list.others_that_fit(room, repeats));
  if (others < common) {
    repeats = 1;
    BOUGH_ASSIGN_OR_RETURN(others, list.others_that_fit(room, repeats));
  }
  if (others < common) return too_short(trial.set.length, common * common_factor + common);
  while (others == list.most_others()) {  // there are no more words: each comes more often
    repeats += usual_repeats;
    BOUGH_ASSIGN_OR_RETURN(others, list.others_that_fit(room, repeats));
  }
  prompt.key = "common words";
  append_to(prompt.text, list.text(others, repeats, trial.random));
  return prompt;
}

Result<Prompt> frequent_words_prompt(RulerTrial trial) {
  RulerFrame frame{.introduction = coded_introduction,
                   .question = "Which " + std::to_string(frequent) + " coded words come most often in the text?",
                   .lead = " The " + std::to_string(frequent) + " coded words that come most often are",
                   .answer_room = coded_answer_room};
  // An entry takes one token at least.
  const std::vector<std::string> words = coded_words(trial.random, std::max(frequent + 1, zipf_ranks(trial.set.length)));
  frame.expected.assign(words.begin() + 1, words.begin() + 1 + frequent);  // rank 1 are the dots
  BOUGH_ASSIGN_OR_RETURN(Prompt prompt, framed(trial, frame));
  BOUGH_ASSIGN_OR_RETURN(const int64_t room, haystack_room(prompt, 0, trial.set.length));
  std::vector<std::vector<TokenId>> tokens;
  for (size_t i = 0; i < words.size(); ++i) {
    BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> word, trial.engine.tokenize(i == 0 ? " ..." : " " + words[i], false));
    tokens.push_back(std::move(word));
  }
  const auto total = [&](int64_t entries) {
    int64_t sum = 0;
    for (int64_t rank = 1; rank <= static_cast<int64_t>(tokens.size()); ++rank) {
      sum += zipf_count(entries, rank) * size_of(tokens[static_cast<size_t>(rank - 1)]);
    }
    return sum;
  };
  int64_t fits = 0;  // the most entries that do, by halving what lies between
  for (int64_t beyond = trial.set.length + 1; beyond - fits > 1;) {
    const int64_t middle = fits + (beyond - fits) / 2;
    (total(middle) <= room ? fits : beyond) = middle;
  }
  if (fits < fewest_entries) return too_short(trial.set.length, fewest_entries);
  std::vector<size_t> entries;
  for (size_t i = 0; i < tokens.size(); ++i)
    entries.insert(entries.end(), static_cast<size_t>(zipf_count(fits, static_cast<int64_t>(i) + 1)), i);
  trial.random.shuffle(entries);
  for (const size_t i : entries) append_to(prompt.text, tokens[i]);
  prompt.key = "frequent words";
  return prompt;
}

}  // namespace bough::eval
