// The program's drawings: bough inspect --attention and bough plot, over a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/cli_case.h"
#include "support/english.h"
#include "support/xml.h"

namespace bough {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kPlan =
    R"({"mode":"stages","sinks":64,"window":128,"stages":[{"chunk":32},{"chunk":8,"keep":160}],"k":96,"first":null,"refresh":[4,2],"tail":64})";

constexpr const char* kTree = R"({"mode":"hip","sinks":64,"window":128,"tree":{"k":64,"key_block":4}})";

class CliDraw : public test::CliCase {
 protected:
  CliDraw() { write("text.txt", test::english_text(200)); }

  void write(const std::string& name, const std::string& content) const { std::ofstream(folder_ / name, std::ios::binary) << content; }
  std::string read(const std::string& name) const {
    std::stringstream content;
    content << std::ifstream(folder_ / name, std::ios::binary).rdbuf();
    return content.str();
  }
  // Without a model.
  static Ran plot(std::vector<std::string> words, int code = 0) {
    words.insert(words.begin(), {BOUGH_CLI, "plot"});
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.exit_code, code) << ran.err;
    return ran;
  }
  Ran look(std::vector<std::string> more, int code = 0) const {
    more.insert(more.begin(), {"inspect", "--attention", folder_ / "text.txt", "--plan", kPlan, "--out", folder_ / "a.svg"});
    return bough(more, {}, code);
  }
};

TEST_F(CliDraw, AttentionIsDrawnAndSummedUp) {
  const Ran ran = look({"--layer", "1", "--head", "3", "--missed", "2", "--json"});
  const Json json = Json::parse(ran.out);
  EXPECT_EQ(json["layer"], 1);
  EXPECT_EQ(json["head"], 3);
  const double kept = json["sinks"].get<double>() + json["selected"].get<double>() + json["window"].get<double>();
  EXPECT_NEAR(json["missed"].get<double>(), 1 - kept, 1e-5);
  EXPECT_GT(json["missed"], 0);
  ASSERT_EQ(json["stages"].size(), 2u);
  EXPECT_EQ(json["stages"][1]["tokens"], 96);
  ASSERT_EQ(json["missed_blocks"].size(), 2u);
  const Result<test::XmlElement> svg = test::parse_xml(read("a.svg"));
  ASSERT_TRUE(svg.ok()) << svg.status().message();
  EXPECT_EQ(svg->find("rect", "top").size(), 2u);
  EXPECT_EQ(svg->find("script").size(), 0u);

  const Ran said = look({"--layer", "1", "--head", "3", "--missed", "2"});
  EXPECT_THAT(said.out, StartsWith("Layer 1, head 3, token "));
  EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n'), 1) << "one paragraph";
  for (const char* part : {"on 64 sinks", "on 96 selected tokens", "is missed, on ", "stage 2 keeps", "Missed most: tokens "}) {
    EXPECT_THAT(said.out, HasSubstr(part));
  }
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.2f%% is missed", json["missed"].get<double>() * 100);
  EXPECT_THAT(said.out, HasSubstr(percent));
}

TEST_F(CliDraw, WhatCannotBeLookedAt) {
  EXPECT_THAT(look({"--layer", "7"}, 2).err, HasSubstr("the layer is 7, it must be 0 to 1"));
  EXPECT_THAT(look({"--head", "4"}, 2).err, HasSubstr("the head is 4, it must be 0 to 3"));
  EXPECT_THAT(look({"--query", "9999999"}, 2).err, HasSubstr("the query's position is 9999999, it must be 0 to "));
  EXPECT_THAT(bough({"inspect", "--attention", folder_ / "none.txt"}, {}, 1).err, HasSubstr("there is no file"));
  EXPECT_THAT(bough({"inspect", "--attention", folder_ / "text.txt", "--out", folder_ / "no/such/a.svg"}, {}, 1).err,
              HasSubstr("cannot be written"));
  EXPECT_THAT(bough({"inspect", "--layer", "1"}, {}, 2).err, HasSubstr("--attention"));
}

TEST_F(CliDraw, ResultsOfMassArePlotted) {
  const Ran mass = bough({"eval", "mass", "--length", "700", "--blocks", "2", "--plan", kPlan, "--plan", kTree, "--json"});
  write("mass.jsonl", mass.out);
  const Ran ran = plot({folder_ / "mass.jsonl", "--out", folder_ / "plots"});
  EXPECT_EQ(ran.out, (folder_ / "plots/recall-filler-700.svg") + "\n" + (folder_ / "plots/cost-mass-filler-700.svg") + "\n");
  for (const char* name : {"plots/recall-filler-700.svg", "plots/cost-mass-filler-700.svg"}) {
    const Result<test::XmlElement> svg = test::parse_xml(read(name));
    ASSERT_TRUE(svg.ok()) << svg.status().message();
    EXPECT_GT(svg->find("circle").size(), 0u);
  }
  const Ran table = bough({"eval", "mass", "--length", "700", "--blocks", "2", "--plan", kPlan, "--heads"});
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 2 + 2 * 5 + 1) << table.out;
}

TEST_F(CliDraw, ResultsOfPasskeyArePlotted) {
  const Ran cells = bough({"eval", "passkey", "--lengths", "400,500", "--trials", "2", "--json"});
  write("cells.jsonl", cells.out);
  const Ran ran = plot({folder_ / "cells.jsonl", "--out", folder_.path()});
  EXPECT_EQ(ran.out, (folder_ / "heat-passkey-filler.svg") + "\n");
  const Result<test::XmlElement> svg = test::parse_xml(read("heat-passkey-filler.svg"));
  ASSERT_TRUE(svg.ok()) << svg.status().message();
  EXPECT_EQ(svg->find("rect", "cell").size(), 2u);
}

TEST_F(CliDraw, BadResultsAreNamed) {
  write("bad.jsonl", "\n{\"task\":\"passkey\"}\n");
  EXPECT_THAT(plot({folder_ / "bad.jsonl"}, 1).err, HasSubstr("bad.jsonl', line 2 is no result: "));
  write("blank.jsonl", "\n\n");
  EXPECT_THAT(plot({folder_ / "blank.jsonl"}, 1).err, HasSubstr("they hold no results"));
  EXPECT_THAT(plot({folder_ / "none.jsonl"}, 1).err, HasSubstr("there is no file"));
  EXPECT_THAT(plot({}, 2).err, HasSubstr("FILE"));
}

}  // namespace
}  // namespace bough
