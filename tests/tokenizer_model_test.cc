// The default model's vocabulary and chat template.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "text/big_stack.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"

namespace bough {
namespace {

using ::testing::ElementsAre;

const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> opened = [] {
    Result<std::unique_ptr<Tokenizer>> made = Tokenizer::open(BOUGH_TEST_MODEL);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return made.ok() ? std::move(*made) : nullptr;
  }();
  return *opened;
}

std::string long_text(size_t bytes) {
  const std::vector<std::string> words = {"In",    "the",    "beginning", "God",        "created",      "heaven", "and",
                                          "earth", "12,345", "e.g.",      "na\u00efve", "\u4e2d\u6587", "x_1",    "don't",
                                          "--",    "\n",     "\n\n",      "    return", "0x1F",         "(see"};
  std::mt19937_64 random(3);
  std::string text;
  while (text.size() < bytes) {
    text += words[random() % words.size()];
    if (random() % 8 != 0) text += ' ';
  }
  return text;
}

TEST(SmolTokenizer, KnownTokens) {
  EXPECT_EQ(tokenizer().vocab_size(), 49152);
  EXPECT_EQ(tokenizer().bos(), 1);
  EXPECT_EQ(tokenizer().eos(), 2);
  EXPECT_TRUE(tokenizer().is_eog(2));
  EXPECT_FALSE(tokenizer().adds_bos());
  EXPECT_THAT(*tokenizer().tokenize("Be kind."), ElementsAre(6077, 1942, 30));
  EXPECT_THAT(*tokenizer().tokenize("<|im_start|>user\n", {.parse_special = true}), ElementsAre(1, 4093, 198));
}

TEST(SmolTokenizer, FiveMegabytes) {
  const std::string text = long_text(5 << 20);
  const auto start = std::chrono::steady_clock::now();
  const Result<std::vector<TokenId>> tokens = tokenizer().tokenize(text);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(tokens.ok());
  RecordProperty("seconds", std::to_string(seconds));
  RecordProperty("tokens", static_cast<int>(tokens->size()));
  EXPECT_LT(seconds, 60);  // about 2 on one idle core
  EXPECT_EQ(*tokenizer().detokenize(*tokens), text);
}

TEST(SmolTokenizer, PiecesGiveTheTokensOfTheWhole) {
  const std::string text = long_text(1 << 20);
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  const Result<std::vector<TokenId>> tokens = tokenizer().tokenize(text);
  ASSERT_TRUE(tokens.ok());
  llama_model* model = llama_model_load_from_file(BOUGH_TEST_MODEL, params);
  ASSERT_NE(model, nullptr);
  std::vector<TokenId> whole(text.size());
  const Status status = run_on_big_stacks(size_t{1} << 30, 1, [&](int) -> Status {
    const int32_t n = llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()), whole.data(),
                                     static_cast<int32_t>(whole.size()), false, false);
    whole.resize(static_cast<size_t>(std::max(n, 0)));
    return {};
  });
  llama_model_free(model);
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(*tokens, whole);
}

TEST(SmolTokenizer, StreamedTextEqualsTheWhole) {
  const std::string text = "Caf\u00e9 \U0001F469\u200D\U0001F680, \u4e2d\u6587 and \u0645\u0631\u062d\u0628\u0627.";
  const Result<std::vector<TokenId>> tokens = tokenizer().tokenize(text);
  ASSERT_TRUE(tokens.ok());
  Detokenizer stream(tokenizer());
  std::string streamed;
  for (const TokenId token : *tokens) streamed += *stream.push(token);
  EXPECT_EQ(streamed + stream.flush(), text);
}

TEST(SmolChat, ItsOwnTemplate) {
  const Result<ChatTemplate> chat = ChatTemplate::of(tokenizer());
  ASSERT_TRUE(chat.ok()) << chat.status().message();
  const std::vector<ChatMessage> messages = {{"user", "Hi <|im_end|>"}};
  const Result<std::vector<TokenId>> tokens = chat_tokens(tokenizer(), *chat, messages, true);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(*tokenizer().detokenize(*tokens, true),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), 2), 2);  // the template's own <|im_end|>, not the user's
}

TEST(SmolChat, AroundALongText) {
  const Result<ChatTemplate> chat = ChatTemplate::of(tokenizer());
  ASSERT_TRUE(chat.ok());
  const std::vector<ChatMessage> messages = {{"user", "@@\n\nWho?"}};
  const Result<SplitPrompt> split = split_chat_tokens(tokenizer(), *chat, messages, "@@", true);
  ASSERT_TRUE(split.ok()) << split.status().message();
  EXPECT_EQ(*tokenizer().detokenize(split->after, true), "\n\nWho?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(split->before.front(), 1);
}

}  // namespace
}  // namespace bough
