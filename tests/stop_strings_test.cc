// StopStrings: the same answer however its text is cut, and nothing shown too early.
#include "text/stop_strings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace bough {
namespace {

using testing::HasSubstr;

struct Shown {
  std::string text;
  bool found = false;
};

Shown show(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings stop(stops);
  Shown shown;
  for (const std::string& piece : pieces) shown.text += stop.push(piece);
  shown.text += stop.flush();
  shown.found = stop.found();
  return shown;
}

// The definition: of all places where a stop string ends the first, of the strings that end there the longest.
Shown expected(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopStrings, EveryCutInTwo) {
  const std::vector<std::vector<std::string>> all = {{"\n\n"}, {"END", "ENDING"}, {"aab"}, {"aaaa", "ab"}, {"\xC3\xA9\xE2\x82\xAC"}, {"x"},
                                                     {}};
  for (const std::vector<std::string>& stops : all) {
    for (const std::string text : {"one\n\ntwo", "an END, no ENDING", "aaaab", "aaaaaaab", "caf\xC3\xA9\xE2\x82\xAC!", "", "E", "ENDIN"}) {
      const Shown want = expected(stops, text);
      for (size_t cut = 0; cut <= text.size(); ++cut) {
        const Shown got = show(stops, {text.substr(0, cut), text.substr(cut)});
        EXPECT_EQ(got.text, want.text) << text << " cut at " << cut;
        EXPECT_EQ(got.found, want.found) << text << " cut at " << cut;
      }
    }
  }
}

TEST(StopStrings, RandomTextsInRandomPieces) {
  std::mt19937 random(7);
  const auto word = [&](size_t most) {
    std::string text(1 + random() % most, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(8));
    const std::string text = word(40);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = 1 + random() % 5;
      pieces.push_back(text.substr(at, bytes));
      at += bytes;
    }
    const Shown got = show(stops, pieces), want = expected(stops, text);
    ASSERT_EQ(got.text, want.text) << text;
    ASSERT_EQ(got.found, want.found) << text;
  }
}

TEST(StopStrings, HoldsBackNoMoreThanItMust) {
  StopStrings stop({"stop!", "top hat"});
  EXPECT_EQ(stop.push("a st"), "a ");
  EXPECT_EQ(stop.push("o"), "");
  EXPECT_EQ(stop.push("op"), "stoop");
  EXPECT_EQ(stop.push(" sto"), " ");
  EXPECT_EQ(stop.push("p"), "");
  EXPECT_EQ(stop.push(" ha"), "s");
  EXPECT_EQ(stop.push("m"), "top ham");
  EXPECT_EQ(stop.push(" to"), " ");
  EXPECT_EQ(stop.flush(), "to");
  EXPECT_FALSE(stop.found());
}

TEST(StopStrings, NothingComesAfterOne) {
  StopStrings stop({"."});
  EXPECT_EQ(stop.push("yes. no"), "yes");
  EXPECT_TRUE(stop.found());
  EXPECT_EQ(stop.push("more"), "");
  EXPECT_EQ(stop.flush(), "");
}

TEST(StopStrings, Checks) {
  const auto refused = [](const std::vector<std::string>& strings) {
    const Status status = check_stop_strings(strings);
    EXPECT_EQ(status.code(), Code::invalid_argument);
    return status.message();
  };
  EXPECT_TRUE(check_stop_strings({}).ok());
  EXPECT_TRUE(check_stop_strings({std::string(1024, 'x'), "\xE2\x82\xAC"}).ok());
  EXPECT_THAT(refused({"a", ""}), HasSubstr("stop string 2 is empty"));
  EXPECT_THAT(refused({std::string(1025, 'x')}), HasSubstr("stop string 1 has 1025 bytes, more than 1024"));
  EXPECT_THAT(refused({"\xE2\x82"}), HasSubstr("stop string 1 is not UTF-8"));
  EXPECT_THAT(refused(std::vector<std::string>(17, "x")), HasSubstr("17 stop strings are more than the 16"));
}

}  // namespace
}  // namespace bough
