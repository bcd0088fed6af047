// `bough chat`: lines of standard input are questions and commands.
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

class CliChat : public test::CliCase {
 protected:
  CliChat() : saved_(folder_ / "talk.json") {}

  Ran chat(const std::string& input, const std::vector<std::string>& more = {}, int code = 0) const {
    std::vector<std::string> words = {"chat", "-n", "6"};
    words.insert(words.end(), more.begin(), more.end());
    return bough(words, {.input = input}, code);
  }
  // Roles and contents of the conversation after these lines.
  json talk(const std::string& input, const std::vector<std::string>& more = {}) const {
    chat(input + "/save " + saved_ + "\n", more);
    std::ifstream file(saved_);
    return json::parse(file).at("messages");
  }

  std::string saved_;
};

TEST_F(CliChat, TurnsAreKept) {
  const json messages = talk("First?\n\nSecond?\n");
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0].at("content"), "First?");
  EXPECT_EQ(messages[1].at("role"), "assistant");
  EXPECT_EQ(messages[2].at("content"), "Second?");
  const Ran ran = chat("First?\n/history\n");
  EXPECT_THAT(ran.out, HasSubstr("user: First?\nassistant: " + messages[1].at("content").get<std::string>()));
}

// Undoing, editing and starting anew give what a conversation without the detour gives.
TEST_F(CliChat, DetoursLeaveNoTrace) {
  const json straight = talk("First?\nSecond?\n");
  EXPECT_EQ(talk("First?\nOther?\n/undo\nSecond?\n"), straight);
  EXPECT_EQ(talk("First?\nOther?\n/edit Second?\n"), straight);
  EXPECT_EQ(talk("Zero?\nOther?\n/reset\nFirst?\nSecond?\n"), straight);
  EXPECT_EQ(talk("First?\n/undo\n"), json::array());
}

TEST_F(CliChat, AConversationGoesOn) {
  const json straight = talk("First?\nSecond?\n");
  talk("First?\n");
  EXPECT_EQ(talk("Second?\n", {"--continue", saved_}), straight);
}

TEST_F(CliChat, TextsAreReadOnceForAllQuestions) {
  std::string text;
  for (int i = 0; i < 80; ++i) text += "Line " + std::to_string(i) + " of the text. ";
  std::ofstream(folder_ / "text.txt") << text;
  const json straight = talk("First?\nSecond?\n", {folder_ / "text.txt", "--no-session"});
  EXPECT_NE(straight, talk("First?\nSecond?\n"));
  EXPECT_EQ(talk("First?\nSecond?\n", {folder_ / "text.txt"}), straight);
  const Ran again = chat("Other?\n/edit First?\nSecond?\n/save " + saved_ + "\n", {folder_ / "text.txt"});
  EXPECT_THAT(again.err, HasSubstr("tokens read before"));
  std::ifstream file(saved_);
  EXPECT_EQ(json::parse(file).at("messages"), straight);
}

TEST_F(CliChat, CommandsThatCannotBe) {
  const Ran ran =
      chat("/undo\n/edit\n/edit x\n/frobnicate\n/save\n/save " + folder_.path() + "/no/such/place\n/help\n/quit\nnever asked\n");
  for (const char* sentence : {"no question to undo", "/edit needs the new question", "no question to edit", "no command '/frobnicate'",
                               "/save needs a file", "no/such/place.part' cannot be opened", "/history"}) {
    EXPECT_THAT(ran.err, HasSubstr(sentence));
  }
  EXPECT_THAT(ran.out, IsEmpty());
}

TEST_F(CliChat, LinesThatAreNoText) {
  const Ran ran = chat("caf\xE9?\nFirst?\n");
  EXPECT_THAT(ran.err, HasSubstr("the line is not UTF-8 text: byte 3"));
  EXPECT_THAT(ran.out, Not(IsEmpty()));
}

TEST_F(CliChat, WhatCannotBeMeant) {
  EXPECT_THAT(chat("", {"-"}, 2).err, HasSubstr("no text can come from there"));
  EXPECT_THAT(chat("", {folder_ / "none.txt"}, 1).err, HasSubstr("there is no file"));
  EXPECT_THAT(chat("", {"--continue", folder_ / "none.json"}, 1).err, HasSubstr("there is no file"));
  for (const auto& [content, why] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "it has no list 'messages'"},
           {"nothing", "it has no list 'messages'"},
           {R"({"messages":[{"role":"assistant","content":"a"}]})", "message 1 has not the role user"},
           {R"({"messages":[{"role":"user"}]})", "message 1 has no text 'content'"},
           {R"({"messages":[{"role":"user","content":"a"}]})", "its last message has no answer"}}) {
    std::ofstream(folder_ / "bad.json") << content;
    EXPECT_THAT(chat("", {"--continue", folder_ / "bad.json"}, 1).err, HasSubstr(why));
  }
}

TEST_F(CliChat, InterruptStopsTheAnswerNotTheProgram) {
  const Ran ran = bough({"chat", "-n", "1000000"}, {.input = "First?\n/history\n", .interrupt_at_output = true});
  EXPECT_THAT(ran.out, HasSubstr("user: First?\nassistant: "));
}

}  // namespace
}  // namespace bough
