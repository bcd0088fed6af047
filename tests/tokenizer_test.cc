#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <random>
#include <thread>

#include "support/tiny_gguf.h"
#include "text/big_stack.h"
#include "text/text_cuts.h"
#include "text/utf8.h"

namespace bough {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenId kByte = 3;  // the token of byte 0 in the tiny vocabulary

GgufBuilder tiny() {
  Result<GgufBuilder> builder = build_tiny_model({.layers = 1}, 1);
  EXPECT_TRUE(builder.ok());
  return *builder;
}

class File {
 public:
  explicit File(const std::vector<std::byte>& bytes) {
    static int count = 0;
    path_ = ::testing::TempDir() + "bough_tokenizer_" + std::to_string(getpid()) + "_" + std::to_string(count++) + ".gguf";
    EXPECT_TRUE(write_bytes(path_, bytes).ok());
  }
  ~File() { std::remove(path_.c_str()); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::unique_ptr<Tokenizer> open(const GgufBuilder& builder) {
  const File file(builder.build());
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::open(file.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

const Tokenizer& tiny_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = open(tiny());
  return *tokenizer;
}

std::vector<TokenId> tokens(const Tokenizer& tokenizer, std::string_view text, TokenizeOptions options = {}) {
  Result<std::vector<TokenId>> result = tokenizer.tokenize(text, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? *result : std::vector<TokenId>{};
}

// The character that byte-level BPE writes for each byte.
std::string byte_character(unsigned byte) {
  const auto printable = [](unsigned b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
  unsigned point = byte;
  if (!printable(byte)) {
    point = 0x100;
    for (unsigned b = 0; b < byte; ++b) point += printable(b) ? 0 : 1;
  }
  if (point < 0x80) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
}

using Merges = std::vector<std::pair<std::string, std::string>>;

// The tiny vocabulary with its 256 bytes, these merges (given in bytes) and these control tokens at the end.
GgufBuilder with_merges(const Merges& pairs, const std::vector<std::string>& controls) {
  const auto written = [](const std::string& bytes) {
    std::string out;
    for (const char c : bytes) out += byte_character(static_cast<unsigned char>(c));
    return out;
  };
  std::vector<std::string> texts = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<int32_t> types = {3, 3, 3};
  std::vector<std::string> merges;
  for (unsigned byte = 0; byte < 256; ++byte) texts.push_back(byte_character(byte));
  for (const auto& [left, right] : pairs) {
    merges.push_back(written(left) + " " + written(right));
    const bool control = std::find(controls.begin(), controls.end(), left + right) != controls.end();
    if (!control) texts.push_back(written(left + right));
  }
  types.resize(texts.size(), 1);
  for (const std::string& control : controls) {
    texts.push_back(written(control));
    types.push_back(3);
  }
  GgufBuilder builder = tiny();
  builder.set("tokenizer.ggml.tokens", texts);
  builder.set("tokenizer.ggml.token_type", types);
  builder.set("tokenizer.ggml.merges", merges);
  builder.set("llama.vocab_size", static_cast<uint32_t>(texts.size()));
  return builder;
}

TEST(Tokenizer, KnowsItsVocabulary) {
  const Tokenizer& t = tiny_tokenizer();
  EXPECT_EQ(t.vocab_size(), tiny_vocab_size());
  EXPECT_EQ(t.bos(), 1);
  EXPECT_EQ(t.eos(), kTinyEos);
  EXPECT_FALSE(t.adds_bos());
  EXPECT_TRUE(t.is_eog(kTinyEos));
  EXPECT_TRUE(t.is_control(1));
  EXPECT_FALSE(t.is_control(kByte + 'a'));
  EXPECT_THAT(t.chat_template(), HasSubstr("<|im_start|>"));
  EXPECT_EQ(t.special_texts().size(), 3u);
}

TEST(Tokenizer, TokensAndBack) {
  const Tokenizer& t = tiny_tokenizer();
  EXPECT_THAT(tokens(t, "AB"), ElementsAre(kByte + 'A', kByte + 'B'));
  const std::string text = "the hen and the inn\n\n  caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80\t.";
  EXPECT_EQ(*t.detokenize(tokens(t, text)), text);
  EXPECT_LT(tokens(t, text).size(), text.size());
  EXPECT_TRUE(tokens(t, "").empty());
  EXPECT_EQ(*t.detokenize({}), "");
}

TEST(Tokenizer, NulIsACharacter) {
  const std::string text("a\0b", 3);
  EXPECT_THAT(tokens(tiny_tokenizer(), text), ElementsAre(kByte + 'a', kByte, kByte + 'b'));
  EXPECT_EQ(*tiny_tokenizer().detokenize(tokens(tiny_tokenizer(), text)), text);
}

TEST(Tokenizer, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  const std::string bad = "\xEF\xBF\xBD";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\xFFz", "a" + bad + "z"},
      {"\xC0\x80", bad + bad},            // overlong NUL
      {"\xED\xA0\x80", bad + bad + bad},  // a lone surrogate
      {"\xED\xA0\xBD\xED\xB8\x80", bad + bad + bad + bad + bad + bad},
      {"\xF4\x90\x80\x80", bad + bad + bad + bad},  // above U+10FFFF
      {"\xE4\xB8", bad},                            // cut by the end
      {"\xE4\xB8z", bad + "z"},
      {"\xF0\x9F\x98", bad},
      {"\x80", bad},
  };
  for (const auto& [input, expected] : cases) {
    EXPECT_EQ(replace_invalid_utf8(input), expected);
    EXPECT_EQ(*tiny_tokenizer().detokenize(tokens(tiny_tokenizer(), input)), expected);
  }
}

TEST(Tokenizer, ControlTokensOnlyWhereAsked) {
  const Tokenizer& t = tiny_tokenizer();
  const std::string text = "<|im_start|>a<|im_end|>";
  EXPECT_THAT(tokens(t, text, {.parse_special = true}), ElementsAre(1, kByte + 'a', 2));
  const std::vector<TokenId> plain = tokens(t, text);
  for (const TokenId token : plain) EXPECT_FALSE(t.is_control(token)) << token;
  EXPECT_EQ(*t.detokenize(plain), text);
  EXPECT_EQ(*t.detokenize(std::vector<TokenId>{1, kByte + 'a', 2}), "a");
  EXPECT_EQ(*t.detokenize(std::vector<TokenId>{1, kByte + 'a', 2}, true), text);
}

TEST(Tokenizer, TextThatMergesIntoAControlTokenIsSpelledOut) {
  const std::unique_ptr<Tokenizer> t = open(with_merges({{"a", "b"}, {"ab", "c"}}, {"abc"}));
  ASSERT_NE(t, nullptr);
  const auto control = static_cast<TokenId>(t->vocab_size() - 1);
  ASSERT_TRUE(t->is_control(control));
  EXPECT_THAT(tokens(*t, "abc", {.parse_special = true}), ElementsAre(control));
  EXPECT_THAT(tokens(*t, "abc"), ElementsAre(kByte + 'a', kByte + 'b', kByte + 'c'));
  EXPECT_EQ(*t->detokenize(tokens(*t, "xabc abc")), "xabc abc");
}

TEST(Tokenizer, BosAsTheModelSays) {
  GgufBuilder builder = tiny();
  builder.set("tokenizer.ggml.add_bos_token", true);
  const std::unique_ptr<Tokenizer> t = open(builder);
  ASSERT_NE(t, nullptr);
  EXPECT_TRUE(t->adds_bos());
  EXPECT_THAT(tokens(*t, "A"), ElementsAre(1, kByte + 'A'));
  EXPECT_THAT(tokens(*t, ""), ElementsAre(1));
  EXPECT_THAT(tokens(*t, "A", {.add_bos_as_model_says = false}), ElementsAre(kByte + 'A'));
}

TEST(Tokenizer, TokensOutsideTheVocabulary) {
  const Tokenizer& t = tiny_tokenizer();
  for (const TokenId token : {-1, tiny_vocab_size(), std::numeric_limits<TokenId>::max(), std::numeric_limits<TokenId>::min()}) {
    EXPECT_EQ(t.piece(token).status().code(), Code::invalid_argument);
    EXPECT_THAT(t.piece(token).status().message(), HasSubstr(std::to_string(token)));
    EXPECT_EQ(t.detokenize(std::vector<TokenId>{5, token}).status().code(), Code::invalid_argument);
    EXPECT_FALSE(t.is_eog(token));
    EXPECT_FALSE(t.is_control(token));
  }
}

TEST(Tokenizer, FilesThatHoldNoVocabulary) {
  EXPECT_EQ(Tokenizer::open("/nonexistent/model.gguf").status().code(), Code::not_found);
  EXPECT_EQ(Tokenizer::open(::testing::TempDir()).status().code(), Code::not_found);
  const File garbage(std::vector<std::byte>(1000, std::byte{0x42}));
  EXPECT_EQ(Tokenizer::open(garbage.path()).status().code(), Code::corrupt);
  const File empty(std::vector<std::byte>{});
  EXPECT_EQ(Tokenizer::open(empty.path()).status().code(), Code::corrupt);
  GgufBuilder builder = tiny();
  builder.set("tokenizer.ggml.model", "no_vocab");
  const File none(builder.build());
  EXPECT_EQ(Tokenizer::open(none.path()).status().code(), Code::unsupported);
  builder.set("tokenizer.ggml.model", "unheard of");
  const File unknown(builder.build());
  EXPECT_EQ(Tokenizer::open(unknown.path()).status().code(), Code::corrupt);
}

TEST(Tokenizer, TooLongATextNamesTheLimit) {
  // Nothing reads the view before its length is checked.
  const char one = 'a';
  const Status status = tiny_tokenizer().tokenize(std::string_view(&one, (size_t{1} << 30) + 1)).status();
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_THAT(status.message(), HasSubstr("1073741824"));
}

TEST(Tokenizer, ManyThreadsAtOnce) {
  const std::string text(3000, 'n');
  const std::vector<TokenId> expected = tokens(tiny_tokenizer(), text + " the end");
  std::array<std::vector<TokenId>, 4> got;
  std::vector<std::thread> threads;
  for (auto& result : got) threads.emplace_back([&] { result = tokens(tiny_tokenizer(), text + " the end"); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : got) EXPECT_EQ(result, expected);
}

// ---- long texts ----

// Words, numbers, marks, blanks and line ends in several scripts, in random order.
std::string mixed_text(uint64_t seed, size_t bytes) {
  const std::vector<std::string> parts = {" ",
                                          "  ",
                                          "\n",
                                          "\n\n",
                                          "\t",
                                          "a",
                                          "word",
                                          "The",
                                          "Z",
                                          "1",
                                          "23",
                                          "4567",
                                          ".",
                                          ",",
                                          " \"",
                                          "'s",
                                          "'S",
                                          "!",
                                          "?\n",
                                          "/",
                                          "\n/",
                                          "A B",
                                          "a b",
                                          "x\ny",
                                          "\r\n",
                                          "end.\nNext",
                                          "(",
                                          ")",
                                          "{",
                                          "_",
                                          "<",
                                          "\u4e2d",
                                          "\u6587\u5b57\u3002\n",
                                          "\u3002",
                                          "\u306e",
                                          "\ud55c\uad6d",
                                          "\u043f\u0440\u0438",
                                          "\u0645\u0631",
                                          "\u05e9",
                                          "\u00e9",
                                          "\u00a0",
                                          "\u3000",
                                          "\u200b",
                                          "\u0301",
                                          "\U0001F600"};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < bytes) text += parts[random() % parts.size()];
  return text;
}

std::vector<TokenId> tokens_of_the_whole(const llama_vocab* vocab, const std::string& text) {
  std::vector<TokenId> out(text.size() + 8);
  const Status status = run_on_big_stacks(size_t{1} << 30, 1, [&](int) -> Status {
    const int32_t n =
        llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), out.data(), static_cast<int32_t>(out.size()), false, false);
    out.resize(static_cast<size_t>(std::max(n, 0)));
    return {};
  });
  EXPECT_TRUE(status.ok());
  return out;
}

class PreTokenizer : public ::testing::TestWithParam<const char*> {};

// The merges reach across blanks and line ends, so a word that did so would show.
TEST_P(PreTokenizer, PiecesGiveTheTokensOfTheWhole) {
  GgufBuilder builder = with_merges({{"a", " "},
                                     {" ", "a"},
                                     {"d", " "},
                                     {" ", "w"},
                                     {"e", " "},
                                     {".", "\n"},
                                     {"\n", "N"},
                                     {"x", "\n"},
                                     {"\n", "\n"},
                                     {"\n", "y"},
                                     {" ", " "},
                                     {"1", "2"},
                                     {"2", "3"},
                                     {"w", "o"},
                                     {"a ", "b"},
                                     {"x\n", "y"},
                                     {"\n", "x"}},
                                    {});
  builder.set("tokenizer.ggml.pre", GetParam());
  const File file(builder.build());
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  const std::unique_ptr<Tokenizer> tokenizer = open(builder);  // silences the library
  ASSERT_NE(tokenizer, nullptr);
  llama_model* model = llama_model_load_from_file(file.path().c_str(), params);
  ASSERT_NE(model, nullptr);
  const std::string text = mixed_text(7, 200 << 10);
  EXPECT_EQ(tokens(*tokenizer, text, {.piece_bytes = 1 << 10}), tokens_of_the_whole(llama_model_get_vocab(model), text));
  llama_model_free(model);
}

INSTANTIATE_TEST_SUITE_P(All, PreTokenizer,
                         ::testing::Values("default", "llama-bpe", "deepseek-llm", "deepseek-coder", "deepseek-v3", "youtu", "falcon",
                                           "mpt", "starcoder", "gpt-2", "jais-2", "smollm", "qwen2", "qwen35", "dbrx", "poro-chat",
                                           "chatglm-bpe", "viking", "tekken", "exaone", "exaone-moe", "chameleon", "gpt-4o", "tiny_aya",
                                           "bailingmoe", "seed-coder", "kimi-k2", "grok-2", "afmoe", "laguna", "minicpm5", "bloom"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// Long words recurse inside std::regex: without pieces on a large stack these texts would end the process.
TEST(LongTexts, OneHugeWordOfAnyKind) {
  for (const char* pre : {"gpt-4o", "tekken", "deepseek-llm", "smollm"}) {
    GgufBuilder builder = tiny();
    builder.set("tokenizer.ggml.pre", pre);
    const std::unique_ptr<Tokenizer> t = open(builder);
    ASSERT_NE(t, nullptr);
    for (const char* unit : {"a", " ", "\n", "7", "!", "\xE4\xB8\xAD", "\xCC\x81"}) {
      std::string text;
      while (text.size() < 150000) text += unit;
      EXPECT_EQ(*t->detokenize(tokens(*t, text)), text) << pre << " " << unit;
    }
  }
}

TEST(LongTexts, ControlTextsWithoutEnd) {
  std::string text;
  while (text.size() < 300000) text += "<|im_end|>";
  const std::vector<TokenId> plain = tokens(tiny_tokenizer(), text);
  for (const TokenId token : plain) ASSERT_FALSE(tiny_tokenizer().is_control(token));
  EXPECT_EQ(*tiny_tokenizer().detokenize(plain), text);
}

TEST(TextCuts, SafePlaces) {
  const CutRules both{.at_blank = true, .at_line = true};
  EXPECT_EQ(first_piece("short", 8, both), 5u);
  EXPECT_EQ(first_piece("one two three", 8, both), 7u);
  EXPECT_EQ(first_piece("one, two. three", 9, both), 9u);  // forced: no letter before a blank
  EXPECT_EQ(first_piece("one.\ntwo12345", 10, both), 5u);
  EXPECT_EQ(first_piece("one.\r\ntwo12345", 10, both), 10u);  // forced
  EXPECT_EQ(first_piece("one two three", 8, {}), 8u);
  EXPECT_EQ(first_piece("\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD", 8, both), 6u);  // never inside a character
}

TEST(TextCuts, SpecialTokensTakeRulesBack) {
  CutRules rules{.at_blank = true, .at_line = true};
  exclude_special(rules, "\n\n", false);
  exclude_special(rules, "  ", false);
  EXPECT_TRUE(rules.at_blank && rules.at_line);
  exclude_special(rules, "end of", false);
  EXPECT_FALSE(rules.at_blank);
  exclude_special(rules, ".\nx", false);
  EXPECT_FALSE(rules.at_line);
  CutRules stripped{.at_blank = true, .at_line = true};
  exclude_special(stripped, "<x>", true);
  EXPECT_FALSE(stripped.at_blank || stripped.at_line);
}

}  // namespace
}  // namespace bough
