// `bough ask` finds what it has read before; `bough sessions` lists and removes it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/cli_case.h"

namespace bough {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class CliSessions : public test::CliCase {
 protected:
  CliSessions() : text_(folder_ / "text.txt") {
    for (int i = 0; i < 120; ++i) content_ += "Line " + std::to_string(i) + " of the text. ";
    write(content_);
  }

  void write(const std::string& content) const { std::ofstream(text_, std::ios::binary) << content; }
  Ran ask(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"ask", text_, "Why?", "-n", "5", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return bough(words);
  }
  static json summary(const Ran& ran) {
    const size_t at = ran.out.rfind("{\"event\":\"summary\"");
    EXPECT_NE(at, std::string::npos) << ran.out;
    return json::parse(ran.out.substr(at));
  }
  static int64_t reused(const Ran& ran) { return summary(ran).at("tokens_reused"); }
  static std::vector<json> sessions() {
    std::vector<json> lines;
    const Ran ran = run_program({BOUGH_CLI, "sessions", "list", "--json"});
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    for (size_t at = 0; at < ran.out.size(); at = ran.out.find('\n', at) + 1)
      lines.push_back(json::parse(ran.out.substr(at, ran.out.find('\n', at) - at)));
    return lines;
  }

  std::string text_;
  std::string content_;
};

TEST_F(CliSessions, TheSecondQuestionReadsNothingTwice) {
  const Ran first = ask(), second = ask(), without = ask({"--no-session"});
  EXPECT_EQ(reused(first), 0);
  const int64_t read = summary(first).at("tokens_read");
  EXPECT_GT(reused(second), read - 64 - 64) << "all but a part of a page and the question";
  EXPECT_EQ(reused(second) + summary(second).at("tokens_read").get<int64_t>(), read);
  EXPECT_THAT(second.err, HasSubstr("tokens read before"));
  EXPECT_EQ(reused(without), 0);
  EXPECT_EQ(summary(second).at("answer"), summary(first).at("answer"));
  EXPECT_EQ(summary(without).at("answer"), summary(first).at("answer"));
  const std::vector<json> list = sessions();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].at("tokens"), reused(second));
  EXPECT_THAT(list[0].at("text").get<std::string>(), HasSubstr("Line 0 of the text. Line 1"));
}

TEST_F(CliSessions, ATextThatGrewOrChanged) {
  const int64_t all = summary(ask()).at("tokens_read");
  write(content_ + content_);
  const Ran grown = ask();
  EXPECT_GT(reused(grown), all - 192);
  EXPECT_EQ(sessions().size(), 1u) << "the same file has grown";
  std::string edited = content_ + content_;
  edited.replace(edited.size() / 2, 4, "LINE");
  write(edited);
  const Ran changed = ask();
  EXPECT_GT(reused(changed), all - 192);
  EXPECT_LT(reused(changed), all + 192);
  EXPECT_EQ(sessions().size(), 2u) << "the text before the change is still there";
  const Ran without = ask({"--no-session"});
  EXPECT_EQ(summary(without).at("answer"), summary(changed).at("answer"));
  write(content_);
  EXPECT_GT(reused(ask()), all - 192);
  EXPECT_EQ(sessions().size(), 2u) << "the beginning of a longer text";
}

TEST_F(CliSessions, AnotherPlanOrTypeReadsForItself) {
  ask();
  EXPECT_EQ(reused(ask({"--plan", "streaming"})), 0);
  EXPECT_EQ(reused(ask({"--kv", "f32"})), 0);
  EXPECT_GT(reused(ask()), 0);
  EXPECT_EQ(sessions().size(), 3u);
}

TEST_F(CliSessions, ShortTextsAreNotKept) {
  write("The sky is blue.");
  ask();
  EXPECT_THAT(sessions(), IsEmpty());
}

TEST_F(CliSessions, TheBudgetEvictsTheOldest) {
  ask();
  const json first = sessions().at(0);
  const double bytes = first.at("bytes");
  write("Another beginning. " + content_);
  const Ran second = ask({"--session-budget", std::to_string(bytes * 1.5 / 1e9)});
  const std::vector<json> left = sessions();
  ASSERT_EQ(left.size(), 1u) << second.err;
  EXPECT_NE(left[0].at("id"), first.at("id"));
  write("A third beginning. " + content_);
  const Ran third = ask({"--session-budget", std::to_string(bytes * 0.5 / 1e9)});
  EXPECT_THAT(third.err, HasSubstr("what is read is not kept: it takes"));
  EXPECT_EQ(sessions().size(), 1u);
}

// The text in two halves: what the first has read is used from the file once the second is read.
TEST_F(CliSessions, LittleMemoryForTheCache) {
  std::string text;
  for (int i = 0; i < 700; ++i) text += "Line " + std::to_string(i) + " of the text. ";
  write(text);
  const json without = summary(ask({"--no-session", "--kv-memory", "0.001"})), little = summary(ask({"--kv-memory", "0.001"}));
  EXPECT_GT(little.at("tokens_read"), 4096);
  EXPECT_EQ(little.at("answer"), without.at("answer"));
  EXPECT_EQ(without.at("cache_memory_bytes"), without.at("cache_bytes"));
  EXPECT_EQ(little.at("cache_bytes"), without.at("cache_bytes"));
  EXPECT_LT(little.at("cache_memory_bytes"), little.at("cache_bytes"));
  const Ran again = bough({"ask", text_, "Why?", "-n", "5"});
  EXPECT_THAT(again.err, HasSubstr("KV cache used from the file"));
  EXPECT_THAT(bough({"ask", text_, "Why?", "--kv-memory", "-1"}, {}, 2).err, HasSubstr("-1 is outside 0.001 to"));
}

TEST_F(CliSessions, ADiskThatFillsUp) {
  const Ran ran = run_program(
      {"/bin/bash", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" ask -m \"$1\" \"$2\" Why? -n 5 --json", BOUGH_CLI, model_, text_});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const size_t said = ran.err.find("bough: what is read is no longer kept: ");
  ASSERT_NE(said, std::string::npos) << ran.err;
  EXPECT_EQ(ran.err.find("no longer kept", said + 40), std::string::npos) << "said once";
  EXPECT_THAT(ran.err, HasSubstr("cannot be written: File too large"));
  EXPECT_EQ(summary(ran).at("answer"), summary(ask({"--no-session"})).at("answer"));
}

TEST_F(CliSessions, DamagedFilesAreReadAnew) {
  const Ran first = ask();
  const std::string path = folder_ / "sessions/" + sessions().at(0).at("id").get<std::string>() + ".session";
  std::vector<std::byte> bytes = test::file_bytes(path);
  bytes[bytes.size() / 2] ^= std::byte{1};
  test::write_file(path, bytes);
  const Ran second = ask();
  EXPECT_THAT(second.err, HasSubstr("is damaged: page"));
  EXPECT_GT(reused(second), 0);
  EXPECT_LT(reused(second), summary(first).at("tokens_read").get<int64_t>() * 2 / 3);
  EXPECT_EQ(summary(second).at("answer"), summary(first).at("answer"));
  EXPECT_GT(reused(ask()), reused(second));
  EXPECT_EQ(sessions().size(), 1u);
}

TEST_F(CliSessions, RemovesWhatIsNamed) {
  ask();
  const std::string id = sessions().at(0).at("id");
  const auto remove = [](std::vector<std::string> words) {
    words.insert(words.begin(), {BOUGH_CLI, "sessions", "rm"});
    return run_program(words);
  };
  EXPECT_EQ(remove({}).exit_code, 2);
  EXPECT_EQ(remove({id, "--all"}).exit_code, 2);
  EXPECT_THAT(remove({"nosuch"}).err, HasSubstr("there is no session 'nosuch'"));
  EXPECT_EQ(remove({"../tiny.gguf"}).exit_code, 1);
  EXPECT_EQ(remove({id}).exit_code, 0);
  EXPECT_THAT(sessions(), IsEmpty());
  ask();
  EXPECT_EQ(remove({"--all"}).exit_code, 0);
  EXPECT_THAT(sessions(), IsEmpty());
  EXPECT_THAT(run_program({BOUGH_CLI, "sessions", "list"}).out, HasSubstr("0 sessions"));
}

TEST_F(CliSessions, AFolderThatCannotBeMade) {
  std::ofstream(folder_ / "sessions") << "a file stands here";
  const Ran ran = ask();
  EXPECT_THAT(ran.err, HasSubstr("what is read is not kept: "));
  EXPECT_EQ(reused(ran), 0);
}

}  // namespace
}  // namespace bough
