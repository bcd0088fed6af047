// Byte offsets of tokens: exact for odd text and for vocabularies that add a blank; an error where a vocabulary rewrites its text.
#include "text/offsets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_gguf.h"

namespace bough {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Tokenizer> tokenizer_of(const GgufBuilder& builder) {
  const std::string path = testing::TempDir() + "bough_offsets_" + std::to_string(getpid()) + ".gguf";
  EXPECT_TRUE(write_bytes(path, builder.build()).ok());
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::open(path);
  std::filesystem::remove(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

GgufBuilder byte_pairs() { return *build_tiny_model({.layers = 1}, 1); }

// A SentencePiece vocabulary: words with their blank in front, which it also puts before a text, and bytes for all else.
GgufBuilder sentence_pieces() {
  std::vector<std::string> texts = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    texts.emplace_back(name);
    types.push_back(6);
  }
  for (const char* word : {"\xE2\x96\x81", "h", "i", "hi", "\xE2\x96\x81hi", "\xE2\x96\x81\xE2\x96\x81", "o", "\xC3\xA9"}) {
    texts.emplace_back(word);
    types.push_back(1);
  }
  std::vector<float> scores(texts.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<float>(texts.size() - i);
  GgufBuilder builder = byte_pairs();
  builder.set("tokenizer.ggml.model", "llama");
  builder.erase("tokenizer.ggml.merges");
  builder.erase("tokenizer.ggml.pre");
  builder.set("tokenizer.ggml.tokens", texts);
  builder.set("tokenizer.ggml.token_type", types);
  builder.set("tokenizer.ggml.scores", scores);
  builder.set("tokenizer.ggml.add_bos_token", true);
  builder.set("tokenizer.ggml.bos_token_id", uint32_t{1});
  builder.set("tokenizer.ggml.eos_token_id", uint32_t{2});
  builder.set("llama.vocab_size", static_cast<uint32_t>(texts.size()));
  return builder;
}

// Every token's piece is the text at its offset; returns the offsets.
std::vector<int64_t> checked(const Tokenizer& tokenizer, const std::string& text) {
  const Result<std::vector<TokenId>> tokens = tokenizer.tokenize(text);
  EXPECT_TRUE(tokens.ok());
  const Result<std::vector<int64_t>> offsets = token_offsets(tokenizer, text, *tokens);
  EXPECT_TRUE(offsets.ok()) << offsets.status().message();
  if (!offsets.ok()) return {};
  EXPECT_EQ(offsets->size(), tokens->size() + 1);
  EXPECT_EQ(offsets->back(), static_cast<int64_t>(text.size()));
  for (size_t i = 0; i < tokens->size(); ++i) {
    const auto from = static_cast<size_t>((*offsets)[i]);
    const std::string piece = *tokenizer.piece((*tokens)[i]);
    const std::string spelled = text.substr(from, static_cast<size_t>((*offsets)[i + 1]) - from);
    if (from == 0 && piece == " " + spelled) continue;  // the blank that the vocabulary adds
    EXPECT_EQ(spelled, piece) << "token " << i;
  }
  return *offsets;
}

const std::vector<std::string>& odd_texts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "hi",
      " hi hi",
      "  hi\n\nhi  ",
      "the hen and the inn\r\n\tcaf\xC3\xA9",
      "\xE4\xB8\xAD\xE6\x96\x87\xE3\x80\x82 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80 e\xCC\x81 \xC2\xA0hi\xE2\x80\x83hi",
      "<|im_end|>hi<|endoftext|>",
      "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xE2\x80\xAB"
      "hi\xE2\x80\xAC",
      std::string("a\0b\x1b[0m", 7)};
  return texts;
}

TEST(Offsets, AreExactForBytePairs) {
  const auto tokenizer = tokenizer_of(byte_pairs());
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& text : odd_texts()) checked(*tokenizer, text);
  std::string all;
  for (int i = 0; i < 400; ++i) all += odd_texts()[static_cast<size_t>(i) % odd_texts().size()];
  checked(*tokenizer, all);
  EXPECT_THAT(checked(*tokenizer,
                      "\xE2\x82\xAC"
                      "x"),
              ElementsAre(0, 1, 2, 3, 4))
      << "tokens may cut a character";
}

TEST(Offsets, AreExactWhereABlankIsAdded) {
  const auto tokenizer = tokenizer_of(sentence_pieces());
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& text : odd_texts()) checked(*tokenizer, text);
  const Result<std::vector<TokenId>> tokens = tokenizer->tokenize("hi hi");
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(*tokenizer->piece(tokens->at(1)), " hi") << "the vocabulary adds a blank";
  EXPECT_THAT(checked(*tokenizer, "hi hi"), ElementsAre(0, 0, 2, 5)) << "BOS spells nothing";
}

TEST(Offsets, TokensOfAnotherTextAreAnError) {
  const auto tokenizer = tokenizer_of(byte_pairs());
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<TokenId> tokens = *tokenizer->tokenize("hen");
  const auto other = token_offsets(*tokenizer, "hat", tokens);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.status().code(), Code::unsupported);
  EXPECT_THAT(other.status().message(), HasSubstr("differ from byte 1 on"));
  const auto longer = token_offsets(*tokenizer, "hens", tokens);
  ASSERT_FALSE(longer.ok());
  EXPECT_THAT(longer.status().message(), HasSubstr("spell 3 bytes, the text has 4"));
  EXPECT_FALSE(token_offsets(*tokenizer, "he", tokens).ok());
  EXPECT_FALSE(token_offsets(*tokenizer, "x", std::vector<TokenId>{1 << 20}).ok());
}

}  // namespace
}  // namespace bough
