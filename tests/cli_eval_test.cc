// The program's quality tasks on a tiny model: cells, tables, files of results that a run goes on with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/cli_case.h"
#include "support/english.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using nlohmann::json;
using test::CliCase;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int failed = 1;
constexpr int usage = 2;

class CliEval : public CliCase {
 protected:
  std::string file(const std::string& name, const std::string& text) const {
    const auto bytes = std::as_bytes(std::span(text));
    test::write_file(folder_ / name, {bytes.begin(), bytes.end()});
    return folder_ / name;
  }

  std::vector<json> cells(std::vector<std::string> words) const {
    words.insert(words.begin(), "eval");
    words.emplace_back("--json");
    std::vector<json> all;
    const std::string out = bough(std::move(words)).out;
    for (size_t from = 0; from < out.size();) {
      const size_t end = out.find('\n', from);
      all.push_back(json::parse(out.substr(from, end - from), nullptr, false));
      from = end + 1;
    }
    return all;
  }
};

TEST_F(CliEval, FinishedCellsAreNotRunAgain) {
  const std::string out = folder_ / "cells.jsonl";
  const std::vector<std::string> words = {"passkey", "--lengths", "400,500", "--depths", "2", "--trials", "1", "--out", out};
  EXPECT_EQ(cells(words).size(), 4u);
  EXPECT_THAT(cells(words), IsEmpty());
  std::filesystem::resize_file(out, std::filesystem::file_size(out) - 10);  // as if the run had been killed while writing
  const std::vector<json> mended = cells(words);
  ASSERT_EQ(mended.size(), 1u);
  EXPECT_EQ(mended[0]["length"], 500);
  EXPECT_EQ(mended[0]["depth"], 0.25) << "the deepest band runs first";
  EXPECT_THAT(cells(words), IsEmpty());
  // More lengths, plans and tasks go on in the same file.
  EXPECT_EQ(cells({"passkey", "--lengths", "400,500,600", "--depths", "2", "--trials", "1", "--out", out}).size(), 2u);
  EXPECT_EQ(cells({"keys", "--keys", "2", "--lengths", "600", "--trials", "2", "--out", out}).size(), 1u);
}

TEST_F(CliEval, AFileOfOtherSettingsIsRefused) {
  const std::string out = folder_ / "cells.jsonl";
  const std::string text = file("book.txt", test::english_text(500));
  ASSERT_EQ(cells({"passkey", "--lengths", "500", "--trials", "1", "--text", text, "--out", out}).size(), 1u);
  const auto bytes = test::file_bytes(out);
  const auto refused = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"eval", "passkey", "--lengths", "500", "--text", text, "--out", out};
    words.insert(words.end(), more.begin(), more.end());
    const Ran ran = bough(words, {}, failed);
    EXPECT_THAT(ran.out, IsEmpty());
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    return ran.err;
  };
  EXPECT_THAT(refused({"--trials", "2"}), HasSubstr("holds results of other settings: passkey at 500 tokens with trials 1, not 2"));
  EXPECT_THAT(refused({"--trials", "1", "--seed", "3"}), HasSubstr("passkey with seed 0, not 3"));
  EXPECT_THAT(refused({"--trials", "1", "--kv", "f32"}), HasSubstr("KV type bf16, not f32"));
  EXPECT_THAT(refused({"--trials", "1", "--one-haystack"}), HasSubstr("with many haystacks"));
  file("book.txt", test::english_text(600));
  EXPECT_THAT(refused({"--trials", "1"}), HasSubstr("another text of the name 'book.txt'"));
  EXPECT_EQ(test::file_bytes(out), bytes);
}

TEST_F(CliEval, FilesThatCannotHoldResults) {
  const auto error = [&](const std::string& out) { return bough({"eval", "passkey", "--out", out}, {}, failed).err; };
  EXPECT_THAT(error(folder_.path()), HasSubstr("cannot be opened: Is a directory"));
  EXPECT_THAT(error(folder_ / "no/such/place"), HasSubstr("cannot be opened: No such file"));
  EXPECT_THAT(error(file("notes.txt", "some notes\n")), HasSubstr("is no file of results: line 1"));
}

TEST_F(CliEval, PlansStandSideBySideAtTheEnd) {
  const Ran ran = bough(
      {"eval", "keys", "--keys", "1,2", "--lengths", "500", "--trials", "1", "--plan", "dense", "--plan", "streaming", "--seed", "11"});
  EXPECT_THAT(ran.out, HasSubstr("seed 11\n"));
  EXPECT_THAT(ran.out, testing::ContainsRegex("depth figure +dense +streaming\n"));
  EXPECT_THAT(ran.out, testing::ContainsRegex("keys-1 +filler +500 +- score +[01]\\.[0-9]+ +[01]\\.[0-9]+\n"));
  EXPECT_THAT(ran.out, testing::ContainsRegex("keys-2 +filler +500 +- score +[01]\\.[0-9]+ +[01]\\.[0-9]+\n"));
}

TEST_F(CliEval, TheTableHasWhatAnEarlierRunFinished) {
  const std::string out = folder_ / "cells.jsonl";
  ASSERT_EQ(cells({"passkey", "--lengths", "400", "--trials", "1", "--plan", "dense", "--out", out}).size(), 1u);
  const Ran ran = bough({"eval", "passkey", "--lengths", "400", "--trials", "1", "--plan", "dense", "--plan", "streaming", "--out", out});
  EXPECT_THAT(ran.out, testing::ContainsRegex("passkey +filler +400 +- score +[01]\\.[0-9]+ +[01]\\.[0-9]+\n"));
}

TEST_F(CliEval, RulerTasksHaveTheirOwnTexts) {
  const std::string text = file("book.txt", test::english_text(2000));
  const std::vector<json> all = cells({"ruler", "--lengths", "3000", "--trials", "1", "--text", text, "--plan", "dense"});
  ASSERT_EQ(all.size(), 11u);
  std::set<std::string> tasks;
  for (const json& cell : all) {
    tasks.insert(cell["task"].get<std::string>() + " " + cell["text"].get<std::string>());
    EXPECT_GE(cell["score"].get<double>(), 0);
    EXPECT_LE(cell["score"].get<double>(), 1);
    EXPECT_TRUE(cell["cross_entropy"].is_null());
    EXPECT_EQ(cell["trials"], 1);
    EXPECT_EQ(cell["chat"], false);
    EXPECT_EQ(cell["text_checksum"] != "", cell["text"] == "book.txt");
  }
  EXPECT_EQ(tasks, (std::set<std::string>{"ruler-single-1 filler", "ruler-single-2 book.txt", "ruler-single-3 book.txt",
                                          "ruler-multi-key-1 book.txt", "ruler-multi-key-2 lines", "ruler-multi-key-3 lines",
                                          "ruler-multi-value book.txt", "ruler-multi-query book.txt", "ruler-variables filler",
                                          "ruler-common-words words", "ruler-frequent-words words"}));
  const std::vector<json> bands =
      cells({"ruler", "--tasks", "single-1,variables", "--lengths", "2000", "--trials", "1", "--depths", "2", "--chat", "--plan", "dense"});
  ASSERT_EQ(bands.size(), 3u) << "variables stand at every depth";
  EXPECT_EQ(bands[0]["depth"], 0.75);
  EXPECT_EQ(bands[1]["depth"], 0.25);
  EXPECT_TRUE(bands[2]["depth"].is_null());
  EXPECT_EQ(bands[2]["chat"], true);
  EXPECT_THAT(bough({"eval", "ruler", "--tasks", "single-1,nope"}, {}, usage).err, HasSubstr("there is no RULER task 'nope'; known are"));
  EXPECT_THAT(bough({"eval", "ruler", "--tasks", "single-1,"}, {}, usage).err, HasSubstr("there is no RULER task ''"));
}

TEST_F(CliEval, PerplexityByDepth) {
  const std::string text = file("book.txt", test::english_text(1000));
  const std::vector<json> all = cells({"ppl", "--lengths", "1000", "--depths", "4", "--rows", "50", "--text", text, "--plan", "dense"});
  ASSERT_EQ(all.size(), 4u);
  for (size_t b = 0; b < 4; ++b) {
    EXPECT_EQ(all[b]["depth"], (static_cast<double>(b) + 0.5) / 4);
    EXPECT_GT(all[b]["cross_entropy"].get<double>(), 0);
    EXPECT_EQ(all[b]["rows"], 50);
    EXPECT_EQ(all[b]["trials"], 2);
    EXPECT_TRUE(all[b]["score"].is_null());
  }
  EXPECT_THAT(bough({"eval", "ppl", "--lengths", "600", "--depths", "2"}, {}, failed).err, HasSubstr("can be scored, not 512"));
}

TEST_F(CliEval, LogitsAgainstDense) {
  const std::vector<json> all =
      cells({"logits", "--lengths", "900", "--trials", "2", "--rows", "4", "--plan", "dense", "--plan", test::kSmallPlan});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["relative_error"], 0.0);
  EXPECT_EQ(all[0]["divergence"], 0.0);
  EXPECT_EQ(all[0]["score"], 1.0);
  EXPECT_GT(all[1]["relative_error"].get<double>(), 0) << "this plan prunes";
  EXPECT_GT(all[1]["divergence"].get<double>(), 0);
  EXPECT_THAT(bough({"eval", "logits", "--lengths", "100000"}, {}, failed).err, HasSubstr("outside the trained context of"));
}

TEST_F(CliEval, TextsOfOneNameAreRefused) {
  std::filesystem::create_directory(folder_ / "other");
  const std::string first = file("book.txt", test::english_text(500));
  const std::string second = file("other/book.txt", test::english_text(500, 2));
  EXPECT_THAT(bough({"eval", "passkey", "--text", first, "--text", second}, {}, failed).err, HasSubstr("two texts are called 'book.txt'"));
}

}  // namespace
}  // namespace bough
