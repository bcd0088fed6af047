#include "text/detokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <random>

#include "support/tiny_gguf.h"
#include "text/utf8.h"

namespace bough {
namespace {

constexpr TokenId kByte = 3;  // the token of byte 0 in the tiny vocabulary

const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> opened = [] {
    const std::string path = ::testing::TempDir() + "bough_detokenizer_" + std::to_string(getpid()) + ".gguf";
    EXPECT_TRUE(write_tiny_gguf(path, {.layers = 1}, 1).ok());
    Result<std::unique_ptr<Tokenizer>> made = Tokenizer::open(path);
    EXPECT_TRUE(made.ok());
    std::remove(path.c_str());
    return std::move(*made);
  }();
  return *opened;
}

std::string push_byte(Detokenizer& detokenizer, unsigned byte) { return *detokenizer.push(kByte + static_cast<TokenId>(byte)); }

TEST(Detokenizer, HoldsBackTheStartOfACharacter) {
  Detokenizer d(tokenizer());
  EXPECT_EQ(push_byte(d, 'a'), "a");
  EXPECT_EQ(push_byte(d, 0xF0), "");
  EXPECT_EQ(push_byte(d, 0x9F), "");
  EXPECT_EQ(push_byte(d, 0x98), "");
  EXPECT_EQ(push_byte(d, 0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(d.flush(), "");
}

TEST(Detokenizer, FlushesWhatNeverBecameACharacter) {
  Detokenizer d(tokenizer());
  EXPECT_EQ(push_byte(d, 0xE4), "");
  EXPECT_EQ(push_byte(d, 0xB8), "");
  EXPECT_EQ(d.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(d.flush(), "");
  EXPECT_EQ(push_byte(d, 'b'), "b");
}

TEST(Detokenizer, BrokenBytesAppearAsSoonAsTheyAreKnownToBe) {
  Detokenizer d(tokenizer());
  EXPECT_EQ(push_byte(d, 0xFF), "\xEF\xBF\xBD");
  EXPECT_EQ(push_byte(d, 0xED), "");
  EXPECT_EQ(push_byte(d, 0xA0), "\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(push_byte(d, 0xC3), "");
  EXPECT_EQ(push_byte(d, 'x'), "\xEF\xBF\xBDx");
}

TEST(Detokenizer, ControlTokens) {
  Detokenizer hidden(tokenizer());
  EXPECT_EQ(*hidden.push(kTinyEos), "");
  Detokenizer shown(tokenizer(), true);
  EXPECT_EQ(*shown.push(kTinyEos), "<|im_end|>");
}

TEST(Detokenizer, ATokenOutsideTheVocabularyChangesNothing) {
  Detokenizer d(tokenizer());
  EXPECT_EQ(push_byte(d, 0xC3), "");
  EXPECT_EQ(d.push(-1).status().code(), Code::invalid_argument);
  EXPECT_EQ(d.push(tiny_vocab_size()).status().code(), Code::invalid_argument);
  EXPECT_EQ(push_byte(d, 0xA9), "\xC3\xA9");
}

TEST(Detokenizer, AnyTokensGiveUtf8AndTheRepairedPieces) {
  std::mt19937_64 random(5);
  const std::vector<unsigned> lively = {0xE4, 0xB8, 0xAD, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0xED, 0xA0, 0xFF, 'a', 0};
  for (int round = 0; round < 200; ++round) {
    Detokenizer d(tokenizer());
    std::string text;
    std::string pieces;
    for (int i = 0; i < 50; ++i) {
      const auto token = random() % 4 == 0 ? static_cast<TokenId>(random() % static_cast<uint64_t>(tiny_vocab_size()))
                                           : kByte + static_cast<TokenId>(lively[random() % lively.size()]);
      const std::string now = *d.push(token);
      EXPECT_TRUE(is_utf8(now));
      text += now;
      pieces += *tokenizer().piece(token);
    }
    text += d.flush();
    EXPECT_EQ(text, replace_invalid_utf8(pieces));
  }
}

}  // namespace
}  // namespace bough
