// The SVG writer and the plots of results: well-formed whatever the texts, marks where the figures say, bad result lines named.
#include "eval/svg.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "eval/svg_plots.h"
#include "support/xml.h"

namespace bough::eval {
namespace {

using test::parse_xml;
using test::XmlElement;

XmlElement parsed(const std::string& svg) {
  Result<XmlElement> root = parse_xml(svg);
  EXPECT_TRUE(root.ok()) << root.status().message() << "\n" << svg.substr(0, 2000);
  return root.ok() ? std::move(*root) : XmlElement{};
}

TEST(Xml, TheReaderRefusesWhatIsNotWellFormed) {
  EXPECT_TRUE(parse_xml("<?xml version=\"1.0\"?>\n<a b=\"c\"><d/>e</a>\n").ok());
  for (const char* text : {"", "<a>", "<a></b>", "<a/><a/>", "<a b=c/>", "<a b=\"1\" b=\"2\"/>", "<a b=\"<\"/>", "<a>&bogus;</a>",
                           "<a>&</a>", "<a>\x01</a>", "<a>\xFF</a>", "<a b=\"1\"c=\"2\"/>"}) {
    EXPECT_FALSE(parse_xml(text).ok()) << text;
  }
}

TEST(Svg, TextsAreEscapedAndNothingRuns) {
  const std::string bad = "</text><script>alert(1)</script>&\"'\x01\xFF\xEF\xBF\xBE";
  const std::string shown = "</text><script>alert(1)</script>&\"'\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD";
  Svg svg(200, 100, bad);
  svg.text({10, 20}, bad, "small");
  svg.rect({1, 2}, 3, 4, "missed", bad);
  svg.heat({1, 2}, 3, 4, 0.5, bad, bad);
  const XmlElement root = parsed(svg.finish());
  EXPECT_EQ(root.name, "svg");
  EXPECT_EQ(root.find("script").size(), 0u);
  ASSERT_EQ(root.find("text", "small").size(), 2u);
  EXPECT_EQ(root.find("text", "small")[0]->text, shown);
  ASSERT_EQ(root.find("rect", "missed").size(), 1u);
  EXPECT_EQ(root.find("rect", "missed")[0]->children.at(0).text, shown);
  EXPECT_EQ(root.children.at(0).text, shown) << "the title";
}

TEST(Svg, HasItsOwnPageAndColoursForDarkViewers) {
  const XmlElement root = parsed(Svg(320, 240, "t").finish());
  const std::vector<const XmlElement*> page = root.find("rect", "page");
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0]->number("width"), 320);
  EXPECT_EQ(page[0]->number("height"), 240);
  const std::string style = root.find("style").at(0)->text;
  const size_t dark = style.find("@media (prefers-color-scheme:dark)");
  ASSERT_NE(dark, std::string::npos);
  for (const char* selector :
       {"text{fill:", ".page{fill:", ".grid{stroke:", ".missed{fill:", ".selected{fill:", ".s0{stroke:", ".s7{stroke:"}) {
    EXPECT_LT(style.find(selector), dark) << selector;
    EXPECT_NE(style.find(selector, dark), std::string::npos) << selector;
  }
}

TEST(Svg, NumbersAndTicks) {
  EXPECT_EQ(decimal(0.1 + 0.2, 3), "0.3");
  EXPECT_EQ(decimal(1200, 2), "1200");
  EXPECT_EQ(decimal(-0.001, 2), "0");
  EXPECT_EQ(decimal(-1.5, 2), "-1.5");
  EXPECT_EQ(tick_step(10, 5), 2);
  EXPECT_EQ(tick_step(9, 3), 5);
  EXPECT_EQ(tick_step(100, 10), 10);
  EXPECT_EQ(tick_step(3000, 8), 500);
}

std::string cell(const std::string& plan, int64_t length, const std::string& depth, double score, double seconds,
                 const std::string& task = "passkey") {
  return R"({"task":")" + task + R"(","plan":")" + plan + R"(","text":"book","length":)" + std::to_string(length) + R"(,"depth":)" + depth +
         R"(,"trials":4,"exact":)" + decimal(score / 2, 6) + R"(,"score":)" + decimal(score, 6) +
         R"(,"cross_entropy":1.5,"relative_error":null,"seconds":)" + decimal(seconds, 3) + R"(,"model":"m.gguf"})" + "\n";
}

ResultLines lines_of(const std::string& content) {
  ResultLines lines;
  const Status status = add_result_lines(content, "cells.jsonl", lines);
  EXPECT_TRUE(status.ok()) << status.message();
  return lines;
}

TEST(ResultLines, MalformedOnesAreNamedWithFileAndLine) {
  const auto message = [](const std::string& line) {
    ResultLines lines;
    const Status status = add_result_lines(cell("default", 8192, "0.5", 1, 2) + "\n" + line + "\n", "my/cells.jsonl", lines);
    EXPECT_EQ(status.code(), Code::corrupt) << line;
    EXPECT_EQ(lines.cells.size(), 1u);
    const std::string start = "'my/cells.jsonl', line 3 is no result: ";
    EXPECT_EQ(status.message().substr(0, start.size()), start) << status.message();
    return status.message().substr(std::min(start.size(), status.message().size()));
  };
  EXPECT_EQ(message("[1]"), "it is no JSON object");
  EXPECT_NE(message(R"({"task":"passkey")").find("parse error"), std::string::npos);
  EXPECT_NE(message(R"({"plan":"default"})").find("'task'"), std::string::npos);
  EXPECT_NE(message(R"({"task":"passkey","plan":7})").find("string"), std::string::npos);
  EXPECT_NE(message(R"({"task":"mass","plan":"default"})").find("'length'"), std::string::npos);
  EXPECT_EQ(message(R"({"task":"a","plan":"b","text":"c","model":"d","length":0,"seconds":1})"), "length is 0, it must be at least 1");
  EXPECT_EQ(message(R"({"task":"a","plan":"b","text":"c","model":"d","length":5,"seconds":1,"depth":1.5,"score":1})"),
            "depth is 1.5, it must be 0 to 1");
  EXPECT_EQ(message(R"({"task":"a","plan":"b","text":"c","model":"d","length":5,"seconds":1,"score":2})"), "score is 2, it must be 0 to 1");
  EXPECT_EQ(message(R"({"task":"a","plan":"b","text":"c","model":"d","length":5,"seconds":1,"score":null})"),
            "it has none of the figures relative_error, score, exact and cross_entropy");
}

// A cell's place follows from its length and depth, its label from the mean of its lines.
TEST(Plots, HeatCellsStandAtTheirLengthAndDepth) {
  const ResultLines lines = lines_of(cell("default", 8192, "0.25", 1, 1) + cell("default", 8192, "0.75", 0.5, 1) +
                                     cell("default", 8192, "0.75", 1, 1) + cell("default", 32768, "0.25", 0, 1));
  const std::vector<Plot> plots = draw_results(lines);
  ASSERT_EQ(plots.size(), 1u) << "one plan has no cost against quality";
  EXPECT_EQ(plots[0].name, "heat-passkey-book.svg");
  const XmlElement root = parsed(plots[0].svg);
  const std::vector<const XmlElement*> cells = root.find("rect", "cell");
  ASSERT_EQ(cells.size(), 3u);
  ASSERT_EQ(root.find("rect", "frame").size(), 1u) << "what was not measured is empty";
  std::map<std::string, const XmlElement*> by_hover;
  for (const XmlElement* c : cells) by_hover[c->children.at(0).text] = c;
  const XmlElement* a = by_hover["default, 8192 tokens, depth 25%: score 1"];
  const XmlElement* b = by_hover["default, 8192 tokens, depth 75%: score 0.75"];
  const XmlElement* c = by_hover["default, 32768 tokens, depth 25%: score 0"];
  ASSERT_TRUE(a != nullptr && b != nullptr && c != nullptr);
  EXPECT_EQ(a->number("x"), b->number("x"));
  EXPECT_LT(a->number("y"), b->number("y"));
  EXPECT_EQ(a->number("y"), c->number("y"));
  EXPECT_LT(a->number("x"), c->number("x"));
  EXPECT_NE(a->attributes.at("fill"), c->attributes.at("fill"));
}

double tick_x(const XmlElement& root, const std::string& axis, double value) {
  for (const XmlElement* t : root.find("text", axis)) {
    if (std::stod(t->text) == value) return t->number(axis == "tick-x" ? "x" : "y") - (axis == "tick-x" ? 0 : 4);
  }
  ADD_FAILURE() << "no tick " << value << " on " << axis;
  return 0;
}

// Plans are judged by the cells that all have: hip's second length counts for nobody.
TEST(Plots, CostPointsStandAtMeansOverCommonCells) {
  const ResultLines lines =
      lines_of(cell("default", 8192, "null", 0.8, 30) + cell("hip", 8192, "null", 0.4, 10) + cell("hip", 32768, "null", 0, 1000));
  const std::vector<Plot> plots = draw_results(lines);
  ASSERT_EQ(plots.size(), 2u);
  EXPECT_EQ(plots[1].name, "cost-passkey-book.svg");
  const XmlElement root = parsed(plots[1].svg);
  for (const auto& [series, cost, value] : {std::tuple("s0", 30.0, 0.8), {"s1", 10.0, 0.4}}) {
    const XmlElement* dot = root.find("circle", series).at(0);
    const double x0 = tick_x(root, "tick-x", 0), x10 = tick_x(root, "tick-x", 10);
    const double y0 = tick_x(root, "tick-y", 0), y2 = tick_x(root, "tick-y", 0.2);
    EXPECT_NEAR(dot->number("cx"), x0 + (x10 - x0) * cost / 10, 0.05) << series;
    EXPECT_NEAR(dot->number("cy"), y0 + (y2 - y0) * value / 0.2, 0.05) << series;
  }
}

TEST(Plots, RecallHasACircleForEachLayerAndACellForEachHead) {
  MassRecord record{.plan = R"({"mode":"stages", and more})", .model = "m.gguf", .text = "a/book.txt", .length = 8192};
  for (const int layer : {2, 5}) {
    MassShares shares{.outside = 0.4, .kept = 0.1 * layer, .best = 0.9, .random = 0.2, .top_kept = 0.6, .top_best = 0.8, .top_random = 0.3};
    shares.stages = {0.9, 0.5};
    record.report.layers.push_back({layer, shares, {shares, shares, shares}});
    record.report.all = shares;
  }
  record.report.keys_searched = 300;
  const Result<MassRecord> back = parse_mass(mass_json(record));
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(mass_json(*back), mass_json(record));
  const std::vector<Plot> plots = draw_results(lines_of(mass_json(record) + "\n"));
  ASSERT_EQ(plots.size(), 1u);
  EXPECT_EQ(plots[0].name, "recall-book.txt-8192.svg");
  const XmlElement root = parsed(plots[0].svg);
  EXPECT_EQ(root.find("rect", "cell").size(), 6u);
  const std::vector<const XmlElement*> dots = root.find("circle", "s0");
  ASSERT_EQ(dots.size(), 4u) << "two layers, mass and heaviest chunks";
  EXPECT_LT(dots[0]->number("cx"), dots[1]->number("cx"));
  EXPECT_GT(dots[0]->number("cy"), dots[1]->number("cy")) << "the second layer keeps more";
  EXPECT_EQ(dots[2]->number("cx"), dots[0]->number("cx"));
}

TEST(Plots, NamesNeverCollide) {
  const ResultLines lines = lines_of(cell("default", 8192, "null", 1, 1, "a/b") + cell("default", 8192, "null", 1, 1, "c/b"));
  const std::vector<Plot> plots = draw_results(lines);
  ASSERT_EQ(plots.size(), 2u);
  EXPECT_EQ(plots[0].name, "heat-b-book.svg");
  EXPECT_EQ(plots[1].name, "heat-b-book-2.svg");
}

}  // namespace
}  // namespace bough::eval
