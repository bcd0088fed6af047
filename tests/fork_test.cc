// Forks and shared beginnings: the bits of a session that computed everything itself, and one copy of the pages.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::logits_of;
using test::same_bits;
using test::session_of;
using test::tiny_text;

constexpr int64_t kRoom = int64_t{64} << 20;

class ForkTest : public testing::TestWithParam<DType> {
 protected:
  // Logits of `text` read at once, then of decoded tokens.
  static std::vector<float> read(Session& session, std::span<const TokenId> text, const std::vector<TokenId>& decoded) {
    EXPECT_TRUE(session.append(text, {.will_sample = true, .logits = 70}).ok());
    return with_decoded(session, logits_of(session), decoded);
  }
  static std::vector<float> with_decoded(Session& session, std::vector<float> logits, const std::vector<TokenId>& decoded) {
    for (const TokenId token : decoded) {
      EXPECT_TRUE(session.decode(token).ok());
      const std::vector<float> row = logits_of(session);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    return logits;
  }
  std::unique_ptr<Engine> engine(int64_t prefix_bytes) const { return file_.engine(test::kSmallPlan, GetParam(), 2, prefix_bytes); }
  int64_t page_bytes(const Engine& engine) const { return 64 * engine.info().kv_bytes_per_token(GetParam()); }

  const test::TinyFile file_{test::peaked_model()};
};

TEST_P(ForkTest, AForkGoesOnAsTheSessionWouldAndNeitherDisturbsTheOther) {
  const auto engine = this->engine(0);
  const std::vector<TokenId> text = tiny_text(530), left = tiny_text(70, 7), right = tiny_text(90, 8), decoded = tiny_text(12, 9);
  std::vector<std::vector<float>> expected;
  for (const auto& more : {left, right}) {
    const auto alone = session_of(*engine);
    ASSERT_TRUE(alone->append(text).ok());
    expected.push_back(read(*alone, more, decoded));
  }
  const auto parent = session_of(*engine);
  ASSERT_TRUE(parent->append(text).ok());
  const int64_t before = engine->cache_bytes();
  Result<std::unique_ptr<Session>> fork = parent->fork();
  ASSERT_TRUE(fork.ok()) << fork.status().message();
  Session& child = **fork;
  EXPECT_EQ(engine->cache_bytes(), before);
  EXPECT_EQ(std::vector<TokenId>(child.tokens().begin(), child.tokens().end()), text);
  EXPECT_TRUE(same_bits(read(child, right, decoded), expected[1]));
  EXPECT_TRUE(same_bits(read(*parent, left, decoded), expected[0]));
}

// 500 tokens end inside a page; what the parent decoded is in the fork, whose next decode row refreshes as after a rollback.
TEST_P(ForkTest, AForkInTheMiddleOfAnAnswer) {
  const auto engine = this->engine(0);
  const std::vector<TokenId> text = tiny_text(500), first = tiny_text(5, 6), rest = tiny_text(9, 7);
  const auto alone = session_of(*engine), parent = session_of(*engine);
  for (Session* session : {alone.get(), parent.get()}) read(*session, text, first);
  Result<std::unique_ptr<Session>> fork = parent->fork();
  ASSERT_TRUE(fork.ok());
  EXPECT_TRUE(same_bits((*fork)->logits(), parent->logits()));
  const std::vector<float> undisturbed = with_decoded(*alone, {}, rest);
  ASSERT_TRUE((*fork)->decode(3).ok());
  EXPECT_TRUE(same_bits(with_decoded(*parent, {}, rest), undisturbed));
  ASSERT_TRUE((*fork)->rollback(505).ok());
  ASSERT_TRUE(alone->rollback(505).ok());
  EXPECT_TRUE(same_bits(with_decoded(**fork, {}, rest), with_decoded(*alone, {}, rest)));
}

TEST_P(ForkTest, AKnownBeginningIsTakenAndChangesNoBit) {
  const std::vector<TokenId> decoded = tiny_text(9, 6);
  std::vector<TokenId> text = tiny_text(900), other = text;
  for (size_t i = 600; i < other.size(); ++i) other[i] = text[899 - i + 600];
  const auto plain = engine(0), sharing = engine(kRoom);
  const auto first = session_of(*sharing), second = session_of(*sharing);
  EXPECT_TRUE(same_bits(read(*first, text, decoded), read(*session_of(*plain), text, decoded)));
  const int64_t before = sharing->cache_bytes();
  ASSERT_TRUE(second->append(other, {.will_sample = true, .logits = 70}).ok());
  EXPECT_EQ(sharing->cache_bytes(), before + 6 * page_bytes(*sharing)) << "tokens 576 to 899 are in pages of their own";
  EXPECT_TRUE(same_bits(with_decoded(*second, logits_of(*second), decoded), read(*session_of(*plain), other, decoded)));
}

// What tails, answers and odd cuts leave behind has bits of its own and is not taken.
TEST_P(ForkTest, OnlyWholePagesReadAtOnceAreShared) {
  const std::vector<TokenId> text = tiny_text(700), decoded = tiny_text(4, 6);
  const auto plain = engine(0), sharing = engine(kRoom);
  const std::vector<float> expected = read(*session_of(*plain), text, decoded);
  const auto odd = session_of(*sharing), short_one = session_of(*sharing);
  ASSERT_TRUE(odd->append(std::span(text).first(100)).ok());
  ASSERT_TRUE(odd->append(std::span(text).subspan(100)).ok());
  read(*short_one, std::span(text).first(330), {text[330]});
  EXPECT_TRUE(same_bits(read(*session_of(*sharing), text, decoded), expected));
  const auto again = session_of(*sharing);
  EXPECT_TRUE(same_bits(read(*again, text, decoded), expected));
  ASSERT_TRUE(again->rollback(130).ok());
  ASSERT_TRUE(again->append(std::span(text).subspan(130)).ok());
  EXPECT_TRUE(same_bits(read(*session_of(*sharing), text, decoded), expected));
}

TEST_P(ForkTest, ANegativeBudgetIsRefused) {
  const Result<std::unique_ptr<Engine>> engine = Engine::open({file_.path(), "dense", GetParam(), 1, nullptr, -1});
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("prefix_bytes is -1"), std::string::npos);
}

TEST_P(ForkTest, ClosedSessionsKeepTheirPagesUpToTheBudget) {
  const int64_t page = page_bytes(*engine(0));
  const auto engine = this->engine(4 * page + page / 2);
  ASSERT_TRUE(session_of(*engine)->append(tiny_text(640)).ok());
  EXPECT_EQ(engine->cache_bytes(), 4 * page);
  const auto again = session_of(*engine);
  ASSERT_TRUE(again->append(std::span<const TokenId>(tiny_text(640)).first(256)).ok());
  EXPECT_EQ(again->length(), 256);
  EXPECT_EQ(engine->cache_bytes(), 4 * page) << "all of it was there";
  ASSERT_TRUE(again->rollback(0).ok());
  EXPECT_EQ(engine->cache_bytes(), 4 * page);
}

INSTANTIATE_TEST_SUITE_P(Types, ForkTest, testing::ValuesIn(kAllDTypes), [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace bough
