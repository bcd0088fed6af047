// Grammar: what may come next, what is refused, and that no grammar harms or holds up the process.
#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <string>
#include <vector>

#include "support/tiny_engine.h"

namespace bough {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr TokenId kByte = 3;  // the token of byte 0 in the tiny vocabulary

const Tokenizer& tokenizer() {
  static const test::TinyFile file(TinyModel{.layers = 1});
  static const Result<std::unique_ptr<Tokenizer>> opened = Tokenizer::open(file.path());
  EXPECT_TRUE(opened.ok());
  return **opened;
}

Result<std::unique_ptr<Grammar>> gbnf(const std::string& text) { return Grammar::open(tokenizer(), GrammarKind::gbnf, text); }
Result<std::unique_ptr<Grammar>> schema(const std::string& text) { return Grammar::open(tokenizer(), GrammarKind::json_schema, text); }

TokenId byte(char c) { return kByte + static_cast<unsigned char>(c); }

// Characters that may come next; '$' at the end when the text may end here.
std::string next_of(Grammar& grammar) {
  std::vector<TokenId> tokens(static_cast<size_t>(tokenizer().vocab_size()));
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<uint8_t> may(tokens.size());
  const Status status = grammar.allowed(tokens, may);
  if (!status.ok()) return status.message();
  std::string out;
  for (int c = 0x20; c < 0x7F; ++c) {
    if (may[static_cast<size_t>(byte(static_cast<char>(c)))] != 0) out += static_cast<char>(c);
  }
  EXPECT_EQ(may[1], 0) << "a control token that does not end the text";
  return may[kTinyEos] != 0 ? out + '$' : out;
}

std::string after(Grammar& grammar, const std::string& text) {
  for (const char c : text) grammar.accept(byte(c));
  return next_of(grammar);
}

TEST(Grammar, FollowsRules) {
  const auto grammar = gbnf("root ::= \"yes\" | \"no\" tail?\ntail ::= [0-3]+ # digits\n");
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  EXPECT_EQ(next_of(**grammar), "ny");
  EXPECT_EQ(after(**grammar, "n"), "o");
  EXPECT_EQ(after(**grammar, "o"), "0123$");
  EXPECT_EQ(after(**grammar, "31"), "0123$");
}

TEST(Grammar, AsksAboutSomeTokensOnly) {
  const auto grammar = gbnf("root ::= \"ab\"");
  ASSERT_TRUE(grammar.ok());
  const std::vector<TokenId> tokens = {byte('b'), byte('a'), 0, kTinyEos, -5, 1 << 30, byte('c')};
  std::vector<uint8_t> may(tokens.size(), 9);
  ASSERT_TRUE((*grammar)->allowed(tokens, may).ok());
  EXPECT_EQ(may, (std::vector<uint8_t>{0, 1, 0, 0, 0, 0, 0}));
  ASSERT_TRUE((*grammar)->allowed({}, {}).ok());
}

TEST(Grammar, CharactersCutByTokens) {
  const auto grammar = gbnf("root ::= [\xC3\xA0-\xC3\xBF] \"!\"");
  ASSERT_TRUE(grammar.ok());
  const std::vector<TokenId> tokens = {byte('\xC3'), byte('\xC2'), byte('\xA9'), byte('!')};
  std::vector<uint8_t> may(tokens.size());
  ASSERT_TRUE((*grammar)->allowed(tokens, may).ok());
  EXPECT_EQ(may, (std::vector<uint8_t>{1, 0, 0, 0}));
  (*grammar)->accept(byte('\xC3'));
  ASSERT_TRUE((*grammar)->allowed(tokens, may).ok());
  EXPECT_EQ(may, (std::vector<uint8_t>{0, 0, 1, 0}));
  EXPECT_EQ(after(**grammar, "\xA9"), "!");
}

TEST(Grammar, JsonSchemas) {
  const auto grammar = schema(R"({"type":"object","properties":{"n":{"type":"integer","minimum":7,"maximum":9},)"
                              R"("b":{"type":"boolean"}},"required":["n","b"],"additionalProperties":false})");
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  EXPECT_EQ(next_of(**grammar), "{");
  EXPECT_THAT(after(**grammar, "{"), HasSubstr("\""));
  EXPECT_EQ(after(**grammar, "\""), "n");
  EXPECT_THAT(after(**grammar, "n\":"), HasSubstr("789"));
  EXPECT_THAT(after(**grammar, "8,\"b\":"), AllOf(HasSubstr("f"), HasSubstr("t")));
}

std::string refusal(const Result<std::unique_ptr<Grammar>>& grammar) {
  EXPECT_EQ(grammar.status().code(), Code::invalid_argument);
  return grammar.status().message();
}

TEST(Grammar, RefusesBadText) {
  EXPECT_EQ(refusal(gbnf("")), "the grammar is empty");
  EXPECT_EQ(refusal(gbnf(std::string(65537, ' '))), "the grammar has 65537 bytes, more than 65536");
  EXPECT_EQ(refusal(gbnf("root ::= \"\xFF\"")), "the grammar is not UTF-8");
  EXPECT_EQ(refusal(gbnf(std::string("root ::= \"a\"\0", 13))), "the grammar holds a NUL at byte 12");
  EXPECT_EQ(refusal(gbnf("root ::= " + std::string(65, '(') + "\"a\"" + std::string(65, ')'))), "the grammar nests 65 deep, more than 64");
  EXPECT_EQ(refusal(schema(std::string(70, '['))), "the JSON schema nests 70 deep, more than 64");
}

TEST(Grammar, SaysWhatTheLibraryFindsWrong) {
  EXPECT_THAT(refusal(gbnf("root ::= missing")), AllOf(StartsWith("the grammar cannot be used: "), HasSubstr("missing")));
  EXPECT_THAT(refusal(gbnf("root ::= \"a")), HasSubstr("unexpected end of input"));
  EXPECT_THAT(refusal(gbnf("start ::= \"a\"")), HasSubstr("root"));
  EXPECT_THAT(refusal(gbnf("root ::= root \"a\" | \"b\"")), HasSubstr("left recursion"));
  EXPECT_THAT(refusal(gbnf("root ::= \"a\"{3000}")), HasSubstr("repetitions"));
  EXPECT_THAT(refusal(schema("{\"type\":")), StartsWith("the JSON schema cannot be used: "));
  EXPECT_THAT(refusal(schema("[1]")), HasSubstr("must be an object"));
  EXPECT_THAT(refusal(schema(R"({"type":"colour"})")), HasSubstr("colour"));
  EXPECT_THAT(refusal(schema(R"({"$ref":"#/nowhere"})")), HasSubstr("nowhere"));
  EXPECT_THAT(refusal(schema(R"({"$ref":"https://example.com/a.json"})")), HasSubstr("example.com"));
  EXPECT_THAT(refusal(schema(R"re({"type":"string","pattern":"a(?=b)"})re")), HasSubstr("pattern"));
}

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The number of ways to read the text doubles with each character.
TEST(Grammar, AmbiguityThatDoubles) {
  const auto grammar = gbnf("root ::= x\nx ::= \"a\" x \"b\" | \"a\" x \"c\" | \"d\"\n");
  ASSERT_TRUE(grammar.ok());
  std::string last;
  EXPECT_LT(seconds_of([&] { last = after(**grammar, std::string(200, 'a')); }), 30);
  EXPECT_THAT(last, AllOf(StartsWith("the grammar "), testing::AnyOf(HasSubstr("seconds"), HasSubstr("memory"))));
  EXPECT_THAT(next_of(**grammar), HasSubstr("no child process any more"));
}

// A rule that may be empty by way of another one hides its left recursion from the library's check.
TEST(Grammar, HiddenLeftRecursion) {
  std::string message;
  EXPECT_LT(seconds_of([&] { message = gbnf("root ::= x \"z\"\nx ::= t x \"c\" | \"d\"\nt ::= u\nu ::= \"a\" |\n").status().message(); }),
            30);
  EXPECT_THAT(message, StartsWith("the grammar "));
}

TEST(Grammar, ManyAtOnce) {
  std::vector<std::unique_ptr<Grammar>> all;
  for (int i = 0; i < 8; ++i) {
    auto grammar = gbnf("root ::= \"" + std::string(1, static_cast<char>('a' + i)) + "\" [xyz]*");
    ASSERT_TRUE(grammar.ok());
    all.push_back(std::move(*grammar));
  }
  for (size_t i = 8; i-- > 0;) EXPECT_EQ(next_of(*all[i]), std::string(1, static_cast<char>('a' + i)));
  all.erase(all.begin() + 2);
  EXPECT_EQ(after(*all[0], "a"), "xyz$");
}

TEST(Grammar, Depths) {
  EXPECT_EQ(grammar_depth("root ::= (\"((\" [(] ) # ((("), 1);
  EXPECT_EQ(grammar_depth("root ::= ((a) (b (c)))"), 3);
  EXPECT_EQ(grammar_depth("root ::= \"\\\"(\" (a)"), 1);
  EXPECT_EQ(json_depth(R"({"a":"[[[","b":[{}]})"), 3);
}

}  // namespace
}  // namespace bough
