// The C ABI: the same answers as the C++ API, and a status in place of every crash that a caller could ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "bough/c.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using testing::HasSubstr;

static_assert(static_cast<int>(Code::invalid_argument) == BOUGH_INVALID_ARGUMENT && static_cast<int>(Code::not_found) == BOUGH_NOT_FOUND);
static_assert(static_cast<int>(Code::unsupported) == BOUGH_UNSUPPORTED && static_cast<int>(Code::corrupt) == BOUGH_CORRUPT);
static_assert(static_cast<int>(Code::out_of_memory) == BOUGH_OUT_OF_MEMORY && static_cast<int>(Code::io_error) == BOUGH_IO_ERROR);
static_assert(static_cast<int>(Code::cancelled) == BOUGH_CANCELLED && static_cast<int>(Code::internal) == BOUGH_INTERNAL);
static_assert(static_cast<int>(Finish::end_of_text) == BOUGH_END_OF_TEXT && static_cast<int>(Finish::max_tokens) == BOUGH_MAX_TOKENS);
static_assert(static_cast<int>(Finish::cancelled) == BOUGH_STOPPED_BY_CALLER && static_cast<int>(Finish::stop) == BOUGH_STOP_STRING);

// "code: message", and "" for success; frees.
std::string told(bough_status* status) {
  if (status == nullptr) return {};
  std::string text = std::to_string(bough_status_code(status)) + ": " + bough_status_message(status);
  bough_status_free(status);
  return text;
}

class CApi : public testing::Test {
 protected:
  CApi() : file_(test::peaked_model()) {
    bough_engine_options options;
    bough_engine_options_init(&options, sizeof options);
    options.model = file_.path().c_str();
    options.plan = test::kSmallPlan;
    options.kv = "f32";
    options.threads = 1;
    EXPECT_EQ(told(bough_engine_open(&options, &engine_)), "");
    EXPECT_EQ(told(bough_session_new(engine_, &session_)), "");
  }
  ~CApi() override {
    bough_session_free(session_);
    bough_engine_free(engine_);
  }
  void read(int64_t count, int64_t logits = 1) {
    bough_append_options options;
    bough_append_options_init(&options, sizeof options);
    options.will_sample = 1;
    options.logits = logits;
    const std::vector<TokenId> tokens = test::tiny_text(count);
    EXPECT_EQ(told(bough_session_append(session_, tokens.data(), tokens.size(), &options)), "");
  }

  test::TinyFile file_;
  bough_engine* engine_ = nullptr;
  bough_session* session_ = nullptr;
};

TEST_F(CApi, AnswersAsTheEngineDoes) {
  read(300, 2);
  size_t rows = 0;
  const float* logits = bough_session_logits(session_, &rows);
  ASSERT_EQ(rows, 2u);
  const auto engine = file_.engine(test::kSmallPlan);
  const auto session = test::session_of(*engine);
  ASSERT_TRUE(session->append(test::tiny_text(300), {.will_sample = true, .logits = 2}).ok());
  EXPECT_EQ(std::memcmp(logits, session->logits().data(), session->logits().size_bytes()), 0);

  bough_generate_options options;
  bough_generate_options_init(&options, sizeof options);
  options.max_tokens = 12;
  options.temperature = 1;
  options.seed = 3;
  options.logprobs = 2;
  const char* stops[] = {"zzzz"};
  options.stop = stops;
  options.stops = 1;
  std::string streamed;
  options.user = &streamed;
  options.on_text = [](const char* text, size_t bytes, void* user) {
    static_cast<std::string*>(user)->append(text, bytes);
    return 1;
  };
  bough_generation* answer = nullptr;
  ASSERT_EQ(told(bough_session_generate(session_, &options, &answer)), "");
  const Result<Generation> expected = session->generate({.max_tokens = 12, .temperature = 1, .seed = 3, .stop = {"zzzz"}, .logprobs = 2});
  size_t bytes = 0, count = 0;
  const char* text = bough_generation_text(answer, &bytes);
  EXPECT_EQ(std::string(text, bytes), expected->text);
  EXPECT_EQ(streamed, expected->text);
  const int32_t* tokens = bough_generation_tokens(answer, &count);
  EXPECT_EQ(std::vector<TokenId>(tokens, tokens + count), expected->tokens);
  EXPECT_EQ(static_cast<int>(bough_generation_finish(answer)), static_cast<int>(expected->finish));
  bough_logprob one;
  ASSERT_EQ(bough_generation_logprob(answer, 0, 2, &one), 1);
  EXPECT_EQ(one.token, expected->logprobs[0].top[1].token);
  EXPECT_EQ(one.logprob, expected->logprobs[0].top[1].logprob);
  EXPECT_EQ(bough_generation_logprob(answer, 0, 3, &one), 0);
  EXPECT_EQ(bough_generation_logprob(answer, count, 0, &one), 0);
  bough_generation_free(answer);
  EXPECT_EQ(bough_session_length(session_), session->length());
  EXPECT_EQ(told(bough_session_rollback(session_, 100)), "");
  EXPECT_EQ(bough_session_logits(session_, &rows), nullptr);
  EXPECT_EQ(rows, 0u);
  EXPECT_GT(bough_engine_cache_bytes(engine_), 0);
}

TEST_F(CApi, TokensAndText) {
  int32_t* tokens = nullptr;
  size_t count = 0, bytes = 0;
  const std::string text("ab\0c", 4);
  ASSERT_EQ(told(bough_tokenize(engine_, text.data(), text.size(), 0, &tokens, &count)), "");
  EXPECT_EQ(count, 4u);
  char* back = nullptr;
  ASSERT_EQ(told(bough_detokenize(engine_, tokens, count, 0, &back, &bytes)), "");
  EXPECT_EQ(std::string(back, bytes), text);
  bough_free(back);
  bough_free(tokens);
  const char* roles[] = {"user"};
  const char* contents[] = {"hello"};
  ASSERT_EQ(told(bough_chat_prompt(engine_, roles, contents, 1, &tokens, &count)), "");
  EXPECT_GT(count, 5u);
  bough_free(tokens);
  EXPECT_EQ(bough_is_end_of_text(engine_, kTinyEos), 1);
  EXPECT_EQ(bough_is_end_of_text(engine_, 100), 0);
}

TEST_F(CApi, Info) {
  bough_model_info info{};
  info.size = sizeof info;
  ASSERT_EQ(told(bough_engine_info(engine_, &info)), "");
  EXPECT_STREQ(info.architecture, "llama");
  EXPECT_EQ(info.layers, 2);
  EXPECT_EQ(info.vocab, tiny_vocab_size());
  bough_model_info older{};
  older.size = offsetof(bough_model_info, d_model);
  older.d_model = -7;
  ASSERT_EQ(told(bough_inspect_model(file_.path().c_str(), &older)), "");
  EXPECT_EQ(older.layers, 2);
  EXPECT_EQ(older.d_model, -7) << "beyond what the caller knows";
  info.size = sizeof info + 8;
  EXPECT_THAT(told(bough_engine_info(engine_, &info)), HasSubstr("1: info.size is"));
}

TEST_F(CApi, Plans) {
  char* json = nullptr;
  ASSERT_EQ(told(bough_engine_plan(engine_, &json)), "");
  EXPECT_THAT(json, HasSubstr("\"sinks\":64"));
  bough_free(json);
  for (size_t i = 0; bough_plan_preset(i) != nullptr; ++i) {
    ASSERT_EQ(told(bough_plan_parse(bough_plan_preset(i), &json)), "");
    bough_free(json);
  }
  EXPECT_EQ(bough_plan_preset(1000), nullptr);
  EXPECT_THAT(told(bough_plan_parse("nope", &json)), HasSubstr("2: "));
  EXPECT_THAT(told(bough_plan_parse("{\"sinks\":-1}", &json)), HasSubstr("1: "));
}

// A struct of an older header leaves the later fields at their defaults; one of a newer header is refused.
TEST_F(CApi, SizesOfStructs) {
  bough_generate_options options;
  bough_generate_options_init(&options, offsetof(bough_generate_options, top_k));
  EXPECT_EQ(options.size, offsetof(bough_generate_options, top_k));
  options.max_tokens = 3;
  options.top_k = -5;
  read(40);
  bough_generation* answer = nullptr;
  EXPECT_EQ(told(bough_session_generate(session_, &options, &answer)), "");
  bough_generation_free(answer);
  options.size = sizeof options + 1;
  EXPECT_THAT(told(bough_session_generate(session_, &options, &answer)), HasSubstr("1: options.size is"));
  options.size = 0;
  EXPECT_THAT(told(bough_session_generate(session_, &options, &answer)), HasSubstr("1: options.size is 0"));
  EXPECT_EQ(bough_abi_version(), BOUGH_ABI_VERSION);
}

TEST_F(CApi, SessionFiles) {
  const std::string path = testing::TempDir() + "bough_c_api.session";
  const std::vector<TokenId> text = test::tiny_text(300);
  ASSERT_EQ(told(bough_session_append(session_, text.data(), text.size(), nullptr)), "");
  EXPECT_EQ(bough_session_savable(session_), 256);
  ASSERT_EQ(told(bough_session_save(session_, path.c_str())), "");
  bough_session* restored = nullptr;
  ASSERT_EQ(told(bough_session_restore(engine_, path.c_str(), -1, &restored)), "");
  EXPECT_EQ(bough_session_length(restored), 256);
  bough_session_free(restored);
  ASSERT_EQ(told(bough_session_restore(engine_, path.c_str(), 130, &restored)), "");
  EXPECT_EQ(bough_session_length(restored), 128);
  bough_session_free(restored);
  std::remove(path.c_str());
  EXPECT_THAT(told(bough_session_restore(engine_, path.c_str(), -1, &restored)), HasSubstr("2: "));
  EXPECT_EQ(told(bough_session_restore(engine_, nullptr, -1, &restored)), "1: path is NULL");
}

TEST_F(CApi, NullEverywhere) {
  EXPECT_EQ(told(bough_engine_open(nullptr, &engine_)), "1: options is NULL");
  EXPECT_EQ(told(bough_session_new(nullptr, &session_)), "1: engine is NULL");
  EXPECT_EQ(told(bough_tokenize(engine_, nullptr, 4, 0, nullptr, nullptr)), "1: text is NULL");
  EXPECT_EQ(told(bough_session_append(session_, nullptr, 4, nullptr)), "1: tokens is NULL");
  EXPECT_EQ(told(bough_session_append(session_, nullptr, 0, nullptr)), "");
  EXPECT_EQ(told(bough_session_generate(session_, nullptr, nullptr)), "1: answer is NULL");
  EXPECT_EQ(told(bough_chat_prompt(engine_, nullptr, nullptr, 1, nullptr, nullptr)), "1: tokens is NULL");
  EXPECT_EQ(told(bough_inspect_model(nullptr, nullptr)), "1: path is NULL");
  EXPECT_EQ(told(bough_plan_parse(nullptr, nullptr)), "1: spec is NULL");
  EXPECT_EQ(bough_status_code(nullptr), BOUGH_OK);
  EXPECT_STREQ(bough_status_message(nullptr), "");
  bough_status_free(nullptr);
  bough_free(nullptr);
  bough_generation_free(nullptr);
  bough_session_free(nullptr);
  bough_engine_free(nullptr);
  EXPECT_EQ(bough_session_length(nullptr), 0);
  EXPECT_EQ(bough_generation_tokens(nullptr, nullptr), nullptr);
}

TEST_F(CApi, ErrorsKeepTheirCodes) {
  bough_engine_options options;
  bough_engine_options_init(&options, sizeof options);
  bough_engine* engine = nullptr;
  EXPECT_EQ(told(bough_engine_open(&options, &engine)), "1: options.model is NULL");
  options.model = "/no/such/model.gguf";
  EXPECT_THAT(told(bough_engine_open(&options, &engine)), HasSubstr("2: "));
  options.kv = "int3";
  EXPECT_THAT(told(bough_engine_open(&options, &engine)), HasSubstr("1: kv is 'int3'"));
  EXPECT_EQ(engine, nullptr);
  EXPECT_THAT(told(bough_session_decode(session_, -1)), HasSubstr("1: "));
  EXPECT_THAT(told(bough_session_rollback(session_, 5)), HasSubstr("1: "));
}

TEST_F(CApi, ProgressCancels) {
  bough_append_options options;
  bough_append_options_init(&options, sizeof options);
  int calls = 0;
  options.user = &calls;
  options.progress = [](int64_t, int64_t, double, void* user) {
    ++*static_cast<int*>(user);
    return 0;
  };
  const std::vector<TokenId> tokens = test::tiny_text(4300);
  EXPECT_THAT(told(bough_session_append(session_, tokens.data(), tokens.size(), &options)), HasSubstr("7: "));
  EXPECT_EQ(calls, 1);
  EXPECT_LT(bough_session_length(session_), 4300);
}

}  // namespace
}  // namespace bough
