// The program `bough` with the default model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bough/engine.h"
#include "support/run_program.h"

namespace bough {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

class CliModel : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::exists(BOUGH_TEST_MODEL)) << BOUGH_TEST_MODEL << " is missing: run tools/fetch_model.sh";
  }

  static Ran bough(std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.begin(), BOUGH_CLI);
    words.insert(words.end(), {"-m", BOUGH_TEST_MODEL});
    return run_program(words, {.input = input});
  }

  static std::vector<Json> json_lines(const std::string& text) {
    std::vector<Json> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
      lines.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
      EXPECT_TRUE(lines.back().is_object()) << line;
    }
    return lines;
  }
};

constexpr const char* story =
    "Anna keeps a red boat in the harbour. Her brother Paul lives in Oslo and paints houses. "
    "Their father once drove the night train from Rome to Paris. In the evening they all eat soup.";

TEST_F(CliModel, RunContinuesThePrompt) {
  const Ran ran = bough({"run", "-n", "4", "The capital of France is"});
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("Paris"));
  EXPECT_THAT(ran.err, HasSubstr("read 5 tokens"));
}

TEST_F(CliModel, AskAnswersFromTheText) {
  const Ran ran = bough({"ask", "-", "What colour is Anna's boat?", "-n", "24"}, story);
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("red"));
}

TEST_F(CliModel, AskRawContinuesTextAndQuestion) {
  const Ran ran = bough({"ask", "--raw", "-", " Paul lives in the city of", "-n", "3", "--json"}, story);
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  const std::vector<Json> lines = json_lines(ran.out);
  ASSERT_FALSE(lines.empty());
  const Json& summary = lines.back();
  EXPECT_EQ(summary["event"], "summary");
  EXPECT_THAT(summary["answer"].get<std::string>(), HasSubstr("Oslo"));
  EXPECT_EQ(summary["answer_tokens"], 3);
  EXPECT_EQ(summary["finish"], "max_tokens");
  EXPECT_GT(summary["peak_memory_bytes"].get<int64_t>(), 0);
  std::string pieces;
  for (const Json& line : lines) pieces += line["event"] == "text" ? line["text"].get<std::string>() : "";
  EXPECT_EQ(pieces, summary["answer"]);
}

TEST_F(CliModel, TheSameSeedGivesTheSameAnswer) {
  const std::vector<std::string> words = {"run", "-n", "12", "--temp", "1", "--seed", "5", "Once upon a time"};
  const Ran first = bough(words);
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(bough(words).out, first.out);
  std::vector<std::string> other = words;
  other[6] = "6";
  EXPECT_NE(bough(other).out, first.out);
}

TEST_F(CliModel, TokenizeCounts) {
  EXPECT_EQ(bough({"tokenize", "--count", "The sky is blue."}).out, "5\n");
  const std::vector<Json> tokens = json_lines(bough({"tokenize", "--json", "The sky is blue."}).out);
  ASSERT_EQ(tokens.size(), 5u);
  EXPECT_EQ(tokens[1]["piece"], " sky");
}

TEST_F(CliModel, InspectTellsShapeAndCost) {
  const Ran ran = bough({"inspect", "--json"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const Json info = Json::parse(ran.out, nullptr, false);
  const Result<ModelInfo> model = inspect_model(BOUGH_TEST_MODEL);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ(info["parameters"], model->parameters);
  EXPECT_EQ(info["weight_bytes"], model->weight_bytes);
  EXPECT_EQ(info["chat_template"], model->chat_template);
  EXPECT_EQ(info["layers"], 30);
  EXPECT_EQ(info["trained_context"], 8192);
  EXPECT_EQ(info["kv_bytes_per_token"], 23040);
  EXPECT_EQ(info["kv_bytes_per_token_by_type"], Json({{"f32", 46080}, {"bf16", 23040}, {"int8", 12240}, {"int4", 7740}}));
  EXPECT_EQ(info["contexts"][2]["tokens"], 131072);
  EXPECT_EQ(info["contexts"][2]["kv_bytes"], int64_t{131072} * 23040);
  EXPECT_LE(info["plan_context_tokens"].get<int64_t>(), 8192);
}

TEST_F(CliModel, ContextsThatCannotFitAreRefusedAtOnce) {
  const Ran ran = bough({"eval", "passkey", "--lengths", "16777216", "--trials", "1", "--json"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.err, HasSubstr("16,777,216 tokens takes 386.5 GB of KV cache in bf16"));
  EXPECT_THAT(ran.err, HasSubstr("of memory are free"));
  EXPECT_THAT(ran.out, IsEmpty());
}

TEST_F(CliModel, PasskeyCellAt4096) {
  const Ran ran = bough({"eval", "passkey", "--lengths", "4096", "--trials", "1", "--text", "filler", "--json"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  const std::vector<Json> cells = json_lines(ran.out);
  ASSERT_EQ(cells.size(), 1u);
  const Json& cell = cells.front();
  EXPECT_EQ(cell["task"], "passkey");
  EXPECT_EQ(cell["plan"], "default");
  EXPECT_EQ(cell["length"], 4096);
  EXPECT_EQ(cell["text"], "filler");
  EXPECT_EQ(cell["trials"], 1);
  EXPECT_EQ(cell["exact"], 1.0);
  EXPECT_EQ(cell["score"], 1.0);
  EXPECT_LT(cell["cross_entropy"].get<double>(), 0.5);
  EXPECT_GE(cell["tokens"].get<int64_t>(), 4096);
  EXPECT_GT(cell["seconds"].get<double>(), 0);
}

}  // namespace
}  // namespace bough
