// Engine and Session on tiny random models: what calls promise, and what errors leave behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::logits_of;
using test::relative_error;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;
using testing::HasSubstr;

const AppendOptions kToSample{.will_sample = true};

class EngineTest : public testing::Test {
 protected:
  EngineTest() : file_(test::peaked_model()), engine_(file_.engine(test::kSmallPlan)) {}
  void SetUp() override { ASSERT_NE(engine_, nullptr); }

  std::unique_ptr<Session> session() { return session_of(*engine_); }
  // A session that has read tiny_text(count) and may sample.
  std::unique_ptr<Session> having_read(int64_t count) {
    auto s = session();
    EXPECT_TRUE(s->append(tiny_text(count), kToSample).ok());
    return s;
  }

  TinyFile file_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, SaysWhatItIs) {
  EXPECT_EQ(engine_->info().layers, 2);
  EXPECT_EQ(engine_->info().vocab, tiny_vocab_size());
  EXPECT_EQ(engine_->info().trained_context, 1024);
  EXPECT_EQ(engine_->kv_type(), DType::f32);
  EXPECT_EQ(engine_->threads(), 1);
  EXPECT_EQ(engine_->plan().k, 64);
  EXPECT_TRUE(engine_->plan_note().empty());
  EXPECT_FALSE(engine_->cpu_body().empty());
  EXPECT_TRUE(engine_->is_end_of_text(kTinyEos));
}

TEST_F(EngineTest, OpenRefuses) {
  const auto error = [&](const EngineOptions& options) {
    const auto engine = Engine::open(options);
    return engine.ok() ? std::string("accepted") : std::string(code_name(engine.status().code())) + ": " + engine.status().message();
  };
  EXPECT_THAT(error({"no such file.gguf"}), HasSubstr("not found"));
  EXPECT_THAT(error({file_.path(), "no such plan"}), HasSubstr("not found"));
  EXPECT_THAT(error({file_.path(), "default", DType::f32, -1}), HasSubstr("threads is -1"));
  EXPECT_THAT(error({file_.path(), "default", DType::f32, 100000}), HasSubstr("threads is 100000"));
  EXPECT_THAT(error({file_.path(), R"({"mode":"streaming","sinks":64,"window":1024,"refresh":[8]})"}), HasSubstr("1024 tokens"));
}

// A preset is cut to the 1,024 tokens of the model, and says so.
TEST_F(EngineTest, PresetsAreCutToFit) {
  const auto engine = file_.engine("default");
  ASSERT_NE(engine, nullptr);
  EXPECT_LE(engine->plan().context_tokens(), 1024);
  EXPECT_THAT(engine->plan_note(), HasSubstr("1024 tokens"));
  EXPECT_TRUE(session_of(*engine)->append(tiny_text(1500), kToSample).ok());
}

TEST_F(EngineTest, AppendKeepsTheLogitsThatWereAskedFor) {
  const auto vocab = static_cast<size_t>(tiny_vocab_size());
  const auto s = session();
  ASSERT_TRUE(s->append(tiny_text(100)).ok());
  EXPECT_TRUE(s->logits().empty());
  ASSERT_TRUE(s->append(tiny_text(10), kToSample).ok());
  EXPECT_EQ(s->logits().size(), vocab);
  ASSERT_TRUE(s->append(tiny_text(10), {.logits = 7}).ok());
  EXPECT_EQ(s->logits().size(), 7 * vocab);
  ASSERT_TRUE(s->append(tiny_text(10), {.logits = 50}).ok());
  EXPECT_EQ(s->logits().size(), 10 * vocab) << "more rows than were appended";
  EXPECT_EQ(s->length(), 130);
  for (const float logit : s->logits()) ASSERT_TRUE(std::isfinite(logit));
}

TEST_F(EngineTest, AppendOfNothing) {
  const auto s = session();
  EXPECT_TRUE(s->append({}, kToSample).ok());
  EXPECT_EQ(s->length(), 0);
  EXPECT_TRUE(s->logits().empty());
  ASSERT_TRUE(s->append(tiny_text(300), kToSample).ok());
  EXPECT_TRUE(s->append({}).ok());
  EXPECT_EQ(s->length(), 300);
  const auto plain = having_read(300);
  ASSERT_TRUE(s->decode(7).ok());
  ASSERT_TRUE(plain->decode(7).ok());
  EXPECT_TRUE(same_bits(s->logits(), plain->logits()));
}

TEST_F(EngineTest, DecodeFirst) {
  const auto s = session();
  ASSERT_TRUE(s->decode(7).ok());
  EXPECT_EQ(s->length(), 1);
  const std::vector<TokenId> one = {7};
  const auto appended = session();
  ASSERT_TRUE(appended->append(one, kToSample).ok());
  EXPECT_LE(relative_error(s->logits(), appended->logits()), 1e-5);
}

TEST_F(EngineTest, TokensOutsideTheVocabularyChangeNothing) {
  const auto s = having_read(300);
  const std::vector<float> before = logits_of(*s);
  for (const TokenId bad : {-1, tiny_vocab_size(), INT32_MAX, INT32_MIN}) {
    const Status decoded = s->decode(bad);
    EXPECT_EQ(decoded.code(), Code::invalid_argument);
    EXPECT_THAT(decoded.message(), HasSubstr(std::to_string(bad)));
    const Status appended = s->append(std::vector<TokenId>{5, bad, 6}, kToSample);
    EXPECT_EQ(appended.code(), Code::invalid_argument);
    EXPECT_THAT(appended.message(), HasSubstr(std::to_string(tiny_vocab_size() - 1)));
  }
  EXPECT_EQ(s->append(tiny_text(3), {.logits = -1}).code(), Code::invalid_argument);
  EXPECT_EQ(s->length(), 300);
  EXPECT_TRUE(same_bits(s->logits(), before));
  const auto fresh = having_read(300);
  ASSERT_TRUE(s->decode(9).ok());
  ASSERT_TRUE(fresh->decode(9).ok());
  EXPECT_TRUE(same_bits(s->logits(), fresh->logits()));
}

TEST_F(EngineTest, RollbackThenAppendEqualsFresh) {
  const std::vector<TokenId> text = tiny_text(800), other = tiny_text(150, 9);
  for (const int64_t back : {0, 1, 64, 100, 250, 448, 800}) {
    const auto s = session();
    ASSERT_TRUE(s->append(text).ok());
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(s->decode(other[static_cast<size_t>(i)]).ok());
    ASSERT_TRUE(s->rollback(back).ok());
    EXPECT_TRUE(s->logits().empty());
    EXPECT_EQ(s->length(), back);
    ASSERT_TRUE(s->append(other, kToSample).ok());
    const auto fresh = session();
    ASSERT_TRUE(fresh->append(std::span(text).first(static_cast<size_t>(back))).ok());
    ASSERT_TRUE(fresh->append(other, kToSample).ok());
    EXPECT_TRUE(same_bits(s->logits(), fresh->logits())) << "back to " << back;
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(s->decode(text[static_cast<size_t>(i)]).ok());
      ASSERT_TRUE(fresh->decode(text[static_cast<size_t>(i)]).ok());
      EXPECT_TRUE(same_bits(s->logits(), fresh->logits())) << "back to " << back << ", decode " << i;
    }
  }
}

// Decode rows rolled back and decoded anew: as if they had never been there.
TEST_F(EngineTest, RollbackOfDecodedTokens) {
  for (const int64_t length : {120, 600}) {
    const auto s = having_read(length), fresh = having_read(length);
    for (int i = 0; i < 7; ++i) ASSERT_TRUE(s->decode(10 + i).ok());
    ASSERT_TRUE(s->rollback(length).ok());
    for (int i = 0; i < 7; ++i) {
      ASSERT_TRUE(s->decode(50 + i).ok());
      ASSERT_TRUE(fresh->decode(50 + i).ok());
      EXPECT_TRUE(same_bits(s->logits(), fresh->logits())) << length << " tokens, decode " << i;
    }
  }
}

TEST_F(EngineTest, RollbackRefuses) {
  const auto s = having_read(10);
  EXPECT_EQ(s->rollback(11).code(), Code::invalid_argument);
  EXPECT_EQ(s->rollback(-1).code(), Code::invalid_argument);
  EXPECT_EQ(s->length(), 10);
  EXPECT_FALSE(s->logits().empty());
}

TEST_F(EngineTest, CancellingKeepsWhatWasRead) {
  const std::vector<TokenId> text = tiny_text(4300);
  const auto s = session();
  int calls = 0;
  Progress last;
  const auto stop = [&](const Progress& p) {
    ++calls;
    last = p;
    return false;
  };
  const Status status = s->append(text, {.will_sample = true, .progress = stop});
  EXPECT_EQ(status.code(), Code::cancelled);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(last.total, 4300);
  EXPECT_EQ(last.done, s->length());
  EXPECT_GT(s->length(), 0);
  EXPECT_LT(s->length(), 4300);
  EXPECT_TRUE(s->logits().empty());
  EXPECT_EQ(s->tokens().size(), static_cast<size_t>(s->length()));
  ASSERT_TRUE(s->append(std::span(text).subspan(static_cast<size_t>(s->length())), kToSample).ok());
  const auto whole = session();
  std::vector<int64_t> done;
  const auto note = [&](const Progress& p) {
    done.push_back(p.done);
    return true;
  };
  ASSERT_TRUE(whole->append(text, {.will_sample = true, .progress = note}).ok());
  EXPECT_TRUE(same_bits(s->logits(), whole->logits()));
  EXPECT_EQ(done.back(), 4300);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(EngineTest, GenerateNeedsLogits) {
  EXPECT_EQ(session()->generate({}).status().code(), Code::invalid_argument);
  const auto s = session();
  ASSERT_TRUE(s->append(tiny_text(20)).ok());
  EXPECT_EQ(s->generate({}).status().code(), Code::invalid_argument);
  EXPECT_EQ(s->length(), 20);
}

TEST_F(EngineTest, GreedyAnswersRepeat) {
  const Result<Generation> first = having_read(600)->generate({.max_tokens = 20});
  const Result<Generation> second = having_read(600)->generate({.max_tokens = 20, .seed = 4});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->tokens, second->tokens);
  EXPECT_EQ(first->text, second->text);
  EXPECT_FALSE(first->tokens.empty());
}

TEST_F(EngineTest, SeedsDecideDraws) {
  const auto answer = [&](uint64_t seed) {
    const Result<Generation> g = having_read(300)->generate({.max_tokens = 20, .temperature = 1.0F, .seed = seed});
    EXPECT_TRUE(g.ok());
    return g->tokens;
  };
  const std::vector<TokenId> first = answer(1);
  EXPECT_EQ(answer(1), first);
  EXPECT_NE(answer(2), first);
}

TEST_F(EngineTest, GenerateDecodesWhatItSays) {
  const auto s = having_read(300);
  std::string streamed;
  const auto take = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  const Result<Generation> g = s->generate({.max_tokens = 12, .temperature = 1.0F, .seed = 3, .on_text = take});
  ASSERT_TRUE(g.ok()) << g.status().message();
  EXPECT_EQ(streamed, g->text);
  EXPECT_EQ(s->length(), 300 + static_cast<int64_t>(g->tokens.size()));
  EXPECT_LE(g->tokens.size(), 12u);
  const std::span<const TokenId> tokens = s->tokens().subspan(300);
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), g->tokens.begin(), g->tokens.end()));
}

TEST_F(EngineTest, OnTextStopsTheAnswer) {
  const auto s = having_read(300);
  const Result<Generation> g = s->generate({.max_tokens = 50, .on_text = [](std::string_view) { return false; }});
  ASSERT_TRUE(g.ok());
  EXPECT_EQ(g->finish, Finish::cancelled);
  EXPECT_LT(g->tokens.size(), 50u);
}

TEST_F(EngineTest, BadTemperature) {
  const auto s = having_read(30);
  EXPECT_EQ(s->generate({.max_tokens = 5, .temperature = -1.0F}).status().code(), Code::invalid_argument);
  EXPECT_EQ(s->generate({.max_tokens = 5, .temperature = NAN}).status().code(), Code::invalid_argument);
  EXPECT_EQ(s->length(), 30);
}

TEST_F(EngineTest, SessionsDoNotDisturbEachOther) {
  const auto alone = having_read(500);
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(alone->decode(30 + i).ok());
    expected.push_back(logits_of(*alone));
  }
  const auto a = having_read(500), b = session();
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(b->append(tiny_text(70 + i, 40), kToSample).ok());
    ASSERT_TRUE(a->decode(30 + i).ok());
    ASSERT_TRUE(b->decode(3).ok());
    EXPECT_TRUE(same_bits(a->logits(), expected[static_cast<size_t>(i)])) << i;
  }
}

TEST_F(EngineTest, PagesReturn) {
  EXPECT_EQ(engine_->cache_bytes(), 0);
  const int64_t page = 64 * engine_->info().kv_bytes_per_token(DType::f32);
  {
    const auto a = having_read(65), b = having_read(64);
    EXPECT_EQ(engine_->cache_bytes(), 3 * page);
    ASSERT_TRUE(b->decode(5).ok());
    EXPECT_EQ(engine_->cache_bytes(), 4 * page);
    ASSERT_TRUE(a->rollback(0).ok());
    EXPECT_EQ(engine_->cache_bytes(), 2 * page);
  }
  EXPECT_EQ(engine_->cache_bytes(), 0);
}

TEST_F(EngineTest, FillWithCopies) {
  const auto s = session();
  EXPECT_EQ(s->fill_with_copies(100).code(), Code::invalid_argument);
  ASSERT_TRUE(s->append(tiny_text(130)).ok());
  EXPECT_EQ(s->fill_with_copies(100).code(), Code::invalid_argument);
  ASSERT_TRUE(s->fill_with_copies(1000).ok());
  EXPECT_EQ(s->length(), 1000);
  EXPECT_EQ(s->tokens()[128], s->tokens()[0]);
  ASSERT_TRUE(s->decode(5).ok());
  EXPECT_EQ(s->length(), 1001);
  for (const float logit : s->logits()) ASSERT_TRUE(std::isfinite(logit));
}

}  // namespace
}  // namespace bough
