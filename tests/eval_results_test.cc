// Cells of quality tasks: their lines, their tables, the file that a run goes on with.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "eval/report.h"
#include "eval/results.h"
#include "support/faulty_files.h"
#include "support/temp_folder.h"

namespace bough::eval {
namespace {

Cell finished_cell() {
  Cell cell{.task = "passkey", .plan = R"({"mode":"dense"})", .text = "b\"ook", .length = 8192, .depth = 0.25, .trials = 10};
  cell.exact = 0.9;
  cell.score = 1.0 / 3;
  cell.cross_entropy = 0.123456789012345;
  cell.sources = 1.0;
  cell.tokens = 81234;
  cell.seconds = 12.5;
  cell.model = "m.gguf";
  cell.kv = "bf16";
  cell.seed = 18446744073709551615u;
  cell.depths = 2;
  cell.one_haystack = true;
  cell.chat = true;
  cell.rows = 16;
  cell.text_checksum = "0123456789abcdef";
  return cell;
}

Cell with_depth(Cell cell, double depth) {
  cell.depth = depth;
  return cell;
}

std::string file_text(const std::string& path) {
  const std::vector<std::byte> bytes = test::file_bytes(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_text(const std::string& path, const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  test::write_file(path, {bytes.begin(), bytes.end()});
}

TEST(Report, CellsComeBackFromTheirLine) {
  const std::string line = cell_json(finished_cell());
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = parse_cell(line);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(cell_json(*back), line);
  EXPECT_EQ(cell_key(*back), cell_key(finished_cell()));
  EXPECT_EQ(back->score, finished_cell().score);
  EXPECT_EQ(settings_conflict(*back, finished_cell()), "");
}

TEST(Report, WhatIsNotMeasuredIsNull) {
  const Cell cell{.task = "ppl", .text = "book", .length = 8192, .trials = 2};
  const std::string line = cell_json(cell);
  for (const char* figure : {"depth", "exact", "score", "cross_entropy", "sources", "relative_error", "divergence"}) {
    EXPECT_NE(line.find("\"" + std::string(figure) + "\":null"), std::string::npos) << figure;
  }
  const auto back = parse_cell(line);
  ASSERT_TRUE(back.ok());
  EXPECT_FALSE(back->exact.has_value());
  EXPECT_FALSE(back->depth.has_value());
}

TEST(Report, KeysTellWhatWasMeasured) {
  Cell cell = finished_cell();
  cell.seconds = 99;
  cell.trials = 7;
  EXPECT_EQ(cell_key(cell), cell_key(finished_cell())) << "figures and settings are not part of it";
  for (const auto& change :
       std::vector<void (*)(Cell&)>{[](Cell& c) { c.task = "keys-8"; }, [](Cell& c) { c.plan = "3k"; }, [](Cell& c) { c.text = "filler"; },
                                    [](Cell& c) { c.length = 1; }, [](Cell& c) { c.depth = 0.75; }, [](Cell& c) { c.depth.reset(); }}) {
    cell = finished_cell();
    change(cell);
    EXPECT_NE(cell_key(cell), cell_key(finished_cell())) << cell_json(cell);
  }
}

TEST(Report, SettingsThatDecideTheFiguresConflict) {
  const auto conflict = [](void (*change)(Cell&)) {
    Cell asked = finished_cell();
    change(asked);
    return settings_conflict(finished_cell(), asked);
  };
  EXPECT_EQ(conflict([](Cell& c) { c.model = "n.gguf"; }), "model m.gguf, not n.gguf");
  EXPECT_EQ(conflict([](Cell& c) { c.kv = "f32"; }), "KV type bf16, not f32");
  EXPECT_EQ(conflict([](Cell& c) { c.seed = 1; }), "passkey with seed 18446744073709551615, not 1");
  EXPECT_EQ(conflict([](Cell& c) { c.trials = 20; }), "passkey at 8192 tokens with trials 10, not 20");
  EXPECT_EQ(conflict([](Cell& c) { c.depths = 4; }), "passkey at 8192 tokens with depths 2, not 4");
  EXPECT_EQ(conflict([](Cell& c) { c.rows = 8; }), "passkey at 8192 tokens with rows 16, not 8");
  EXPECT_EQ(conflict([](Cell& c) { c.one_haystack = false; }), "passkey at 8192 tokens with one haystack");
  EXPECT_EQ(conflict([](Cell& c) { c.chat = false; }), "passkey at 8192 tokens with the chat template");
  EXPECT_EQ(conflict([](Cell& c) { c.text_checksum = "x"; }), "another text of the name 'b\"ook'");
}

TEST(Report, OtherPlacesHaveTheirOwnSettings) {
  const auto conflict = [](void (*change)(Cell&)) {
    Cell asked = finished_cell();
    asked.trials = 20;
    change(asked);
    return settings_conflict(finished_cell(), asked);
  };
  EXPECT_EQ(conflict([](Cell& c) { c.length = 32768; }), "");
  EXPECT_EQ(conflict([](Cell& c) { c.task = "keys-8"; }), "");
  EXPECT_EQ(conflict([](Cell& c) { c.text = "filler"; }), "");
  EXPECT_EQ(conflict([](Cell& c) { c.trials = 0; }), "") << "a task that finds its number of trials itself";
  EXPECT_NE(conflict([](Cell& c) { c.plan = "3k"; }), "") << "plans are compared with each other";
}

TEST(Report, BandsHaveTheirMiddle) {
  EXPECT_FALSE(band_depth(0, 1).has_value());
  EXPECT_EQ(band_depth(0, 4), 0.125);
  EXPECT_EQ(band_depth(3, 4), 0.875);
}

TEST(Report, RefusesWhatIsNoCell) {
  for (const char* line : {"", "{", "[]", "null", "{}", R"({"task":"ppl"})", R"({"task":1,"plan":2})"}) {
    const auto cell = parse_cell(line);
    ASSERT_FALSE(cell.ok()) << line;
    EXPECT_EQ(cell.status().code(), Code::corrupt);
  }
}

TEST(Report, TableColumnsAlign) {
  Cell cell = finished_cell();
  cell.plan = std::string(100, 'x');
  cell.text = std::string(50, 'y');
  cell.task = std::string(50, 'z');
  EXPECT_EQ(cell_table_header().size(), cell_table_row(cell).size());
  EXPECT_EQ(cell_table_header().size(), cell_table_row({.task = "ppl", .plan = "default", .text = "filler"}).size());
}

TEST(Report, PlansStandSideBySide) {
  std::vector<Cell> cells(3, finished_cell());
  cells[0].plan = "default";
  cells[1].plan = "dense";
  cells[1].score = 0.5;
  cells[2].plan = "default";
  cells[2].task = "ppl";
  cells[2].score.reset();
  cells[2].cross_entropy = 2;
  EXPECT_EQ(comparison_table(cells),
            "task                   text           length depth figure              default            dense\n"
            "passkey                b\"ook            8192 0.250 score                  0.33             0.50\n"
            "ppl                    b\"ook            8192 0.250 perplexity            7.389                -\n");
}

TEST(Results, GoOnWhereTheyEnded) {
  const test::TempFolder folder;
  const std::string path = folder / "cells.jsonl";
  const Cell second = with_depth(finished_cell(), 0.75);
  {
    auto results = Results::open(machine_files(), path);
    ASSERT_TRUE(results.ok()) << results.status().message();
    EXPECT_EQ(results->find(finished_cell()), nullptr);
    ASSERT_TRUE(results->add(finished_cell()).ok());
    EXPECT_NE(results->find(finished_cell()), nullptr);
  }
  {
    auto results = Results::open(machine_files(), path);
    ASSERT_TRUE(results.ok()) << results.status().message();
    const Cell* found = results->find(finished_cell());
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(cell_json(*found), cell_json(finished_cell()));
    EXPECT_EQ(results->find(second), nullptr);
    ASSERT_TRUE(results->add(second).ok());
  }
  EXPECT_EQ(file_text(path), cell_json(finished_cell()) + "\n" + cell_json(second) + "\n");
}

TEST(Results, ALineThatWasCutIsWrittenAgain) {
  const test::TempFolder folder;
  const std::string path = folder / "cells.jsonl";
  const std::string whole = cell_json(finished_cell()) + "\n";
  const Cell second = with_depth(finished_cell(), 0.75);
  const std::string last = cell_json(second);
  for (const size_t kept : {size_t{1}, size_t{12}, last.size() - 1}) {
    write_text(path, whole + last.substr(0, kept));
    auto results = Results::open(machine_files(), path);
    ASSERT_TRUE(results.ok()) << kept << ": " << results.status().message();
    EXPECT_EQ(results->find(second), nullptr);
    ASSERT_TRUE(results->add(second).ok());
    EXPECT_EQ(file_text(path), whole + last + "\n") << kept;
  }
  write_text(path, whole + last);  // only its end is missing
  auto results = Results::open(machine_files(), path);
  ASSERT_TRUE(results.ok()) << results.status().message();
  EXPECT_NE(results->find(second), nullptr);
  EXPECT_EQ(file_text(path), whole + last + "\n");
}

TEST(Results, OtherFilesAreLeftAlone) {
  const test::TempFolder folder;
  const std::string path = folder / "notes.txt";
  for (const std::string& text : {std::string("notes"), std::string("some\nnotes\n"), cell_json(finished_cell()) + "\nnotes\n",
                                  std::string("{\"event\":\"progress\"}\n"), std::string("\n")}) {
    write_text(path, text);
    const auto results = Results::open(machine_files(), path);
    ASSERT_FALSE(results.ok()) << text;
    EXPECT_EQ(results.status().code(), Code::invalid_argument);
    EXPECT_NE(results.status().message().find("is no file of results: line "), std::string::npos) << results.status().message();
    EXPECT_EQ(file_text(path), text);
  }
}

TEST(Results, OtherSettingsAreRefused) {
  const test::TempFolder folder;
  const std::string path = folder / "cells.jsonl";
  auto results = Results::open(machine_files(), path);
  ASSERT_TRUE(results.ok());
  ASSERT_TRUE(results->add(finished_cell()).ok());
  EXPECT_TRUE(results->check(finished_cell()).ok());
  Cell asked = finished_cell();
  asked.trials = 20;
  const Status refused = results->check(asked);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.message(),
            "'" + path + "' holds results of other settings: passkey at 8192 tokens with trials 10, not 20; name another file");
}

TEST(Results, OneWriterAtATime) {
  const test::TempFolder folder;
  const auto first = Results::open(machine_files(), folder / "cells.jsonl");
  ASSERT_TRUE(first.ok());
  const auto second = Results::open(machine_files(), folder / "cells.jsonl");
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("another process writes to"), std::string::npos);
}

TEST(Results, WithoutAFileCellsAreRemembered) {
  Results results;
  Cell other = finished_cell();
  other.trials = 3;
  ASSERT_TRUE(results.add(other).ok());
  EXPECT_NE(results.find(finished_cell()), nullptr);
  EXPECT_TRUE(results.check(finished_cell()).ok());
}

// A full disk leaves half a line; what is written there later is whole.
TEST(Results, AFailedWriteLosesNothing) {
  const test::TempFolder folder;
  const std::string path = folder / "cells.jsonl";
  const Cell second = with_depth(finished_cell(), 0.75);
  test::FaultyFiles files;
  files.writes_only = true;
  {
    auto results = Results::open(files, path);
    ASSERT_TRUE(results.ok()) << results.status().message();
    ASSERT_TRUE(results->add(finished_cell()).ok());
    files.fail_at = files.operations;
    EXPECT_FALSE(results->add(second).ok());
    EXPECT_EQ(results->find(second), nullptr);
  }
  auto results = Results::open(machine_files(), path);
  ASSERT_TRUE(results.ok()) << results.status().message();
  EXPECT_NE(results->find(finished_cell()), nullptr);
  ASSERT_TRUE(results->add(second).ok());
  EXPECT_EQ(file_text(path), cell_json(finished_cell()) + "\n" + cell_json(second) + "\n");
}

}  // namespace
}  // namespace bough::eval
