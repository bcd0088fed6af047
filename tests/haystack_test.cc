// Corpora, haystacks and where needles stand in them.
#include "eval/haystack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "eval/corpus.h"
#include "eval/passkey.h"
#include "eval/ppl.h"

namespace bough::eval {
namespace {

constexpr TokenId stop = 7;  // stands for a full stop

Corpus book(int64_t count) {
  Corpus corpus{"book", std::vector<TokenId>(static_cast<size_t>(count)), false};
  for (size_t i = 0; i < corpus.tokens.size(); ++i) corpus.tokens[i] = i % 10 == 9 ? stop : static_cast<TokenId>(1000 + i);
  return corpus;
}

bool is_stop(TokenId token) { return token == stop; }

bool has_no_stop(TokenId) { return false; }

TEST(Corpus, PiecesWrapOnlyWhenEndless) {
  Corpus corpus{"c", {1, 2, 3}, false};
  EXPECT_EQ(corpus.starts(3), 1);
  EXPECT_EQ(corpus.starts(4), 0);
  EXPECT_EQ(*corpus.piece(1, 2), (std::vector<TokenId>{2, 3}));
  const auto beyond = corpus.piece(2, 2);
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.status().code(), Code::invalid_argument);
  EXPECT_NE(beyond.status().message().find("has 3 tokens"), std::string::npos);
  EXPECT_FALSE(corpus.piece(-1, 1).ok());
  corpus.endless = true;
  EXPECT_EQ(*corpus.piece(2, 5), (std::vector<TokenId>{3, 1, 2, 3, 1}));
}

TEST(Passkey, KeysHaveFiveDigitsAndFollowSeedAndTrial) {
  std::set<std::string> keys;
  for (int i = 0; i < 100; ++i) {
    const std::string key = passkey_of(5, i);
    ASSERT_EQ(key.size(), 5u);
    EXPECT_NE(key[0], '0');
    keys.insert(key);
  }
  EXPECT_GT(keys.size(), 95u);
  EXPECT_EQ(passkey_of(5, 3), passkey_of(5, 3));
  EXPECT_NE(passkey_of(5, 3), passkey_of(6, 3));
}

TEST(Weave, NeedlesStandAfterFullStopsInTheOrderOfTheirDepths) {
  const std::vector<TokenId> haystack = *book(500).piece(0, 500);
  const std::vector<Needle> needles = {{0.6, {101, 102}}, {0.125, {201}}, {0.6, {301}}};
  const Woven woven = weave(haystack, needles, is_stop);
  ASSERT_EQ(woven.tokens.size(), 504u);
  ASSERT_EQ(woven.places.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(woven.tokens[static_cast<size_t>(woven.places[i])], needles[i].tokens[0]) << i;
  EXPECT_EQ(woven.places, (std::vector<int64_t>{301, 60, 303})) << "tokens 59, 299 of the haystack are full stops";
  std::vector<TokenId> rest;
  std::copy_if(woven.tokens.begin(), woven.tokens.end(), std::back_inserter(rest), [](TokenId t) { return t >= 1000 || t == stop; });
  EXPECT_EQ(rest, haystack);
}

TEST(Weave, WithoutFullStopsTheDepthIsExact) {
  const std::vector<Needle> needles = {{0.75, {101}}};
  EXPECT_EQ(weave(*book(500).piece(0, 500), needles, has_no_stop).places.front(), 375);
}

TEST(Haystack, EachTrialHasItsOwnUnlessOneIsAskedFor) {
  EXPECT_EQ(trial_haystack(book(50'000), {}, 0, 500)->front(), 1000);
  EXPECT_EQ(trial_haystack(book(50'000), {}, 1, 500)->front(), 1000 + 9973);
  EXPECT_EQ(trial_haystack(book(50'000), {.one_haystack = true}, 1, 500)->front(), 1000);
  EXPECT_EQ(trial_haystack(book(600), {}, 8, 500)->front(), 1000 + 8 * 9973 % 101) << "wrapped into a short text";
  const auto too_long = trial_haystack(book(600), {}, 0, 700);
  ASSERT_FALSE(too_long.ok());
  EXPECT_NE(too_long.status().message().find("has 600 tokens"), std::string::npos);
}

TEST(Haystack, RoomIsWhatThePromptLeaves) {
  const Prompt prompt{.text = {1, 2, 3}, .question = {4, 5}, .answer = {}, .expected = {}, .answer_room = 10, .key = {}};
  EXPECT_EQ(*haystack_room(prompt, 4, 100), 81);
  const auto none = haystack_room(prompt, 4, 19);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.status().message().find("19 tokens is too short: at least 20"), std::string::npos) << none.status().message();
}

TEST(Ppl, OffsetsStayInsideTheText) {
  EXPECT_EQ(*ppl_offsets(book(300'000), 8192), (std::vector<int64_t>{0, 100'000}));
  EXPECT_EQ(*ppl_offsets(book(1000), 600), (std::vector<int64_t>{0, 100'000 % 401}));
  EXPECT_EQ(*ppl_offsets(book(600), 600), (std::vector<int64_t>{0}));
  EXPECT_FALSE(ppl_offsets(book(600), 601).ok());
}

}  // namespace
}  // namespace bough::eval
