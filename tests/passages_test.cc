// Passages as places in files: lines, bytes and quotes; the file belongs to the program, not to a library.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/utf8.h"

// NOLINTNEXTLINE(bugprone-suspicious-include)
#include "../apps/bough/sources.cc"

namespace bough::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string quoted(const std::string& text, const std::string& part) {
  const size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos);
  return quote_of(text, at, at + part.size());
}

TEST(Quote, IsTheSentence) {
  const std::string text = "First one. The boat\n is  red today! Last one";
  EXPECT_EQ(quoted(text, "boat"), "The boat is red today!");
  EXPECT_EQ(quoted(text, "irst"), "First one.");
  EXPECT_EQ(quoted(text, "ast o"), "Last one");
  EXPECT_EQ(quoted("Title\n\nA line without end", "line"), "A line without end");
}

TEST(Quote, LongSentencesAreCutAroundThePassage) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "word" + std::to_string(i) + " ";
  const std::string quote = quoted(text, "word50 word51");
  EXPECT_THAT(quote, HasSubstr("word50 word51"));
  EXPECT_THAT(quote, StartsWith("..."));
  EXPECT_THAT(quote, EndsWith("..."));
  EXPECT_LE(quote.size(), 106U);
}

TEST(Quote, CutsBetweenCharactersAndShowsNoControls) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "\xF0\x9F\x98\x80";
  for (size_t at = 0; at < 12; ++at) {
    const std::string quote = quote_of(text, 300 + at, 320 + at);
    EXPECT_TRUE(is_utf8(quote)) << at;
    EXPECT_LE(quote.size(), 406U);
  }
  EXPECT_EQ(quoted("a \x1b[31mred\x7f\xC2\x9B boat\r\n.", "red"), "a [31mred boat .");
}

TEST(Passages, AreBytesAndLinesOfTheirFiles) {
  const std::string first = "one\ntwo caf\xC3\xA9\n";
  const std::string second = "three\n\nfour";
  Texts texts;
  texts.all = "File: a\n\n" + first + "\n\nFile: b\n\n" + second;
  const size_t a = 9, b = a + first.size() + 11;
  texts.parts = {{"a", a, a + first.size(), 0}, {"-", b, b + second.size(), 3}};
  ASSERT_EQ(texts.all.substr(b), second);
  std::vector<int64_t> offsets(texts.all.size() + 1);  // a token a byte
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<int64_t>(i);

  const auto cafe = static_cast<int64_t>(texts.all.find("caf"));
  const auto four = static_cast<int64_t>(texts.all.find("four"));
  const std::vector<Source> sources = {{cafe - 1, 5, 0.5}, {0, 6, 0.3}, {four - 2, 6, 0.1}, {static_cast<int64_t>(a), 3, 0.01}};
  const std::vector<Passage> passages = passages_of(texts, offsets, sources, 3);
  ASSERT_EQ(passages.size(), 2U) << "the line that names a file is no passage, nor is what says next to nothing";
  EXPECT_EQ(passages[0].file, "a");
  EXPECT_EQ(passages[0].line, 2);
  EXPECT_EQ(first.substr(static_cast<size_t>(passages[0].begin), static_cast<size_t>(passages[0].end - passages[0].begin)), "caf\xC3\xA9")
      << "whole characters without blanks around them";
  EXPECT_EQ(passages[0].quote, "one two caf\xC3\xA9");
  EXPECT_EQ(passages[1].file, "-");
  EXPECT_EQ(passages[1].line, 3);
  EXPECT_EQ(passages[1].begin, 3 + 7) << "counted from before the byte order mark";
  EXPECT_EQ(passages[1].end, 3 + 11);
  EXPECT_EQ(passages_of(texts, offsets, sources, 1).size(), 1U);

  const auto json = nlohmann::json::parse(passages_json(passages), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["event"], "sources");
  EXPECT_EQ(json["sources"][0]["line"], 2);
  EXPECT_EQ(json["sources"][0]["weight"], 0.5);
  EXPECT_EQ(json["sources"][1]["quote"], "four");
}

}  // namespace
}  // namespace bough::cli
