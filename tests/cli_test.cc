// The program `bough`: bad input, where each mistake has its exit code and one sentence on stderr that names it, and tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "support/run_program.h"
#include "support/tiny_gguf.h"

namespace bough {
namespace {

using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int failed = 1;
constexpr int usage = 2;

class Cli : public ::testing::Test {
 protected:
  Cli() {
    folder_ = ::testing::TempDir() + "bough_cli_XXXXXX";
    if (mkdtemp(folder_.data()) == nullptr) ADD_FAILURE() << "no folder for the test's files";
    text_ = file("text.txt", "The sky is blue.");
    setenv("BOUGH_CACHE", folder_.c_str(), 1);  // no test sees or leaves a session of the user's
  }
  ~Cli() override {
    unsetenv("BOUGH_CACHE");
    std::filesystem::remove_all(folder_);
  }

  std::string file(const std::string& name, const std::string& content) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static Ran bough(std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.begin(), BOUGH_CLI);
    return run_program(words, {.input = input});
  }

  // One line "bough: ..." that holds `part`, nothing on stdout, this exit code.
  static void expect_error(const std::vector<std::string>& words, int code, const std::string& part) {
    const Ran ran = bough(words);
    EXPECT_EQ(ran.exit_code, code) << ran.err;
    EXPECT_THAT(ran.err, StartsWith("bough: "));
    EXPECT_THAT(ran.err, HasSubstr(part));
    EXPECT_THAT(ran.err, EndsWith("\n"));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_THAT(ran.out, IsEmpty());
  }

  std::string tiny_model() const {
    const std::string path = folder_ + "/tiny.gguf";
    const Status written = write_tiny_gguf(path, {}, 7);
    EXPECT_TRUE(written.ok()) << written.message();
    EXPECT_TRUE(Engine::open({.model = path}).ok()) << "what the program is given must be a model that loads";
    return path;
  }

  std::string folder_;
  std::string text_;
};

TEST_F(Cli, HelpNamesEveryCommandAndHasAnExample) {
  const Ran ran = bough({"--help"});
  EXPECT_EQ(ran.exit_code, 0);
  for (const char* command : {"ask", "run", "inspect", "tokenize", "bench", "eval", "plot", "sessions"})
    EXPECT_THAT(ran.out, HasSubstr(command));
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{"ask"},
                                                                                       {"chat"},
                                                                                       {"run"},
                                                                                       {"inspect"},
                                                                                       {"tokenize"},
                                                                                       {"bench"},
                                                                                       {"eval"},
                                                                                       {"eval", "passkey"},
                                                                                       {"eval", "keys"},
                                                                                       {"eval", "ruler"},
                                                                                       {"eval", "ppl"},
                                                                                       {"eval", "logits"},
                                                                                       {"eval", "mass"},
                                                                                       {"plot"},
                                                                                       {"sessions"},
                                                                                       {"sessions", "list"},
                                                                                       {"sessions", "rm"}}) {
    std::vector<std::string> words = command;
    words.emplace_back("--help");
    const Ran help = bough(words);
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, HasSubstr("Example"));
    EXPECT_THAT(help.out, HasSubstr("bough " + command.front()));
    EXPECT_THAT(help.err, IsEmpty());
  }
}

TEST_F(Cli, NothingAtAllShowsTheHelp) {
  const Ran ran = bough({});
  EXPECT_EQ(ran.exit_code, usage);
  EXPECT_THAT(ran.err, HasSubstr("ask"));
}

TEST_F(Cli, UnknownCommandsAndOptions) {
  expect_error({"frobnicate"}, usage,
               "there is no command 'frobnicate'; known are ask, chat, run, inspect, tokenize, bench, eval, plot, sessions");
  expect_error({"eval"}, usage, "eval needs a task: passkey, keys, ruler, ppl, logits or mass");
  expect_error({"eval", "frobnicate"}, usage, "there is no task 'frobnicate'; known are passkey, keys, ruler, ppl, logits, mass");
  expect_error({"sessions"}, usage, "sessions needs an action: list or rm");
  expect_error({"sessions", "frobnicate"}, usage, "there is no action 'frobnicate'; known are list, rm");
  expect_error({"ask", text_, "why?", "--frobnicate"}, usage, "--frobnicate");
  expect_error({"--frobnicate"}, usage, "--frobnicate");
  expect_error({"inspect", "a", "b"}, usage, "b");
}

TEST_F(Cli, FilesThatAreNoText) {
  expect_error({"ask", folder_ + "/none.txt", "why?"}, failed, "there is no file '" + folder_ + "/none.txt'");
  expect_error({"ask", folder_, "why?"}, failed, "is a directory");
  expect_error({"ask", file("empty", ""), "why?"}, failed, "is empty");
  expect_error({"ask", file("bom", "\xEF\xBB\xBF"), "why?"}, failed, "is empty");
  expect_error({"ask", file("nul", std::string("text\0text", 9)), "why?"}, failed, "is not text: byte 4 is NUL");
  expect_error({"ask", file("latin1", "caf\xE9 au lait"), "why?"}, failed, "is not UTF-8 text: byte 3");
  expect_error({"ask", file("surrogate", "a\xED\xA0\x80"), "why?"}, failed, "is not UTF-8 text: byte 1");
  expect_error({"ask", file("overlong", "a\xC0\xAF"), "why?"}, failed, "is not UTF-8 text: byte 1");
  expect_error({"ask", file("cut", "ab\xE2\x82"), "why?"}, failed, "is not UTF-8 text: byte 2");
  expect_error({"ask", "/dev/zero", "why?"}, failed, "is not text: byte 0 is NUL");
  expect_error({"ask", text_, folder_ + "/none.txt", "why?"}, failed, "none.txt");
  expect_error({"tokenize", "-f", folder_}, failed, "is a directory");
  expect_error({"run", "-f", folder_ + "/none.txt"}, failed, "there is no file");
  expect_error({"eval", "passkey", "--text", folder_ + "/none.txt"}, failed, "there is no file");
}

TEST_F(Cli, MissingWords) {
  expect_error({"ask"}, usage, "at least one FILE and then the question");
  expect_error({"ask", text_}, usage, "at least one FILE and then the question");
  expect_error({"ask", text_, ""}, usage, "the question is empty");
  expect_error({"ask", text_, "caf\xE9"}, usage, "the question is not UTF-8");
  expect_error({"run", ""}, usage, "the prompt is empty");
  expect_error({"run", "a", "-f", text_}, usage, "not both");
  expect_error({"tokenize", "a", "-f", text_}, usage, "not both");
  expect_error({"run"}, failed, "standard input is empty");
  expect_error({"tokenize"}, failed, "standard input is empty");
}

TEST_F(Cli, QuestionsInBracketsStayWhole) {
  // Split at its comma, the question would make a file of "[a".
  expect_error({"ask", folder_ + "/none.txt", "[a, b]"}, failed, "none.txt");
  expect_error({"ask", text_, "[a, b]", "-m", folder_ + "/none.gguf"}, failed, "none.gguf");
  expect_error({"ask", folder_ + "/none.txt", "run"}, failed, "none.txt");
}

TEST_F(Cli, Plans) {
  expect_error({"ask", text_, "why?", "--plan", "nope"}, usage, "nope");
  expect_error({"ask", text_, "why?", "--plan", "nope"}, usage, "default, descent, 3k");
  expect_error({"ask", text_, "why?", "--plan", R"({"mode":)"}, usage, "JSON");
  expect_error({"ask", text_, "why?", "--plan", R"({"mode":"dense","sinks":"many"})"}, usage, "sinks");
  expect_error({"run", "a", "--plan", R"({"mode":"stages","sinks":-1})"}, usage, "-1");
  expect_error({"inspect", "--plan", "nope"}, usage, "nope");
  expect_error({"bench", "--plan", "nope"}, usage, "nope");
  expect_error({"eval", "ppl", "--plan", "default", "--plan", "nope"}, usage, "nope");
}

TEST_F(Cli, NumbersOutOfRange) {
  for (const char* threads : {"-1", "0", "100000", "9999999999999999999999"}) {
    expect_error({"ask", text_, "why?", "--threads", threads}, usage, std::string("--threads: ") + threads + " is outside 1 to 1024");
  }
  expect_error({"ask", text_, "why?", "--threads", "two"}, usage, "'two' is not a whole number of 1 to 1024");
  expect_error({"ask", text_, "why?", "--threads", "2x"}, usage, "'2x' is not a whole number");
  expect_error({"ask", text_, "why?", "--threads"}, usage, "--threads");
  for (const char* most : {"-5", "0", "1048577", "99999999999999999999999"}) {
    expect_error({"run", "a", "--max-tokens", most}, usage, std::string("--max-tokens: ") + most + " is outside 1 to 1048576");
  }
  expect_error({"run", "a", "--temperature", "-1"}, usage, "--temperature: -1 is outside 0 to 100");
  expect_error({"run", "a", "--temp", "nan"}, usage, "'nan' is not a number");
  expect_error({"run", "a", "--temp", "inf"}, usage, "inf is outside 0 to 100");
  expect_error({"run", "a", "--seed", "-1"}, usage, "--seed: -1 is outside 0 to");
  expect_error({"run", "a", "--top-p", "0"}, usage, "--top-p: 0 is outside 1e-06 to 1");
  expect_error({"run", "a", "--min-p", "1.5"}, usage, "--min-p: 1.5 is outside 0 to 1");
  expect_error({"run", "a", "--top-k", "-1"}, usage, "--top-k: -1 is outside 0 to");
  expect_error({"run", "a", "--repeat-penalty", "0"}, usage, "--repeat-penalty: 0 is outside 0.1 to 10");
  expect_error({"run", "a", "--logprobs", "101"}, usage, "--logprobs: 101 is outside 0 to 100");
  expect_error({"run", "a", "--kv", "q8_0"}, usage, "'q8_0' is none of bf16, f32, int8, int4");
  expect_error({"tokenize", "a", "--head", "0"}, usage, "--head: 0 is outside 1 to");
  expect_error({"bench", "--what", "both"}, usage, "'both' is none of prefill, decode, all, cost");
  expect_error({"bench", "--depths", "0,-1"}, usage, "-1 is outside 0 to 16777216");
  expect_error({"eval", "mass", "--blocks", "0"}, usage, "--blocks: 0 is outside 1 to 1000");
  expect_error({"eval", "passkey", "--trials", "0"}, usage, "--trials: 0 is outside 1 to 10000");
  expect_error({"eval", "ppl", "--depths", "0"}, usage, "--depths: 0 is outside 1 to 1000");
  expect_error({"eval", "keys", "--keys", "8,129"}, usage, "--keys: 129 is outside 1 to 128");
  expect_error({"eval", "logits", "--rows", "0"}, usage, "--rows: 0 is outside 1 to 4096");
}

TEST_F(Cli, LengthLists) {
  expect_error({"eval", "passkey", "--lengths", "abc"}, usage, "'abc' is not a whole number of 1 to 16777216");
  expect_error({"eval", "passkey", "--lengths", "8192,"}, usage, "'' is not a whole number");
  expect_error({"eval", "passkey", "--lengths", ""}, usage, "'' is not a whole number");
  expect_error({"eval", "passkey", "--lengths", "8192,1e9"}, usage, "'1e9' is not a whole number");
  expect_error({"eval", "ppl", "--lengths", "0"}, usage, "0 is outside 1 to 16777216");
  expect_error({"eval", "ppl", "--lengths", "16777217"}, usage, "16777217 is outside 1 to 16777216");
  expect_error({"eval", "passkey", "--one-haystack", "--many-haystacks"}, usage, "exclude each other");
}

TEST_F(Cli, Models) {
  expect_error({"run", "a", "-m", folder_ + "/none.gguf"}, failed, "none.gguf");
  expect_error({"run", "a", "-m", folder_}, failed, folder_);
  const std::string text_model = file("text.gguf", "this is no model, and long enough for a header");
  expect_error({"run", "a", "-m", text_model}, failed, "text.gguf");
  expect_error({"inspect", text_model}, failed, "text.gguf");
  expect_error({"tokenize", "a", "-m", text_model}, failed, "text.gguf");
  expect_error({"inspect", file("empty.gguf", "")}, failed, "empty.gguf");
  expect_error({"inspect", file("cut.gguf", std::string("GGUF\3\0\0\0\7\0\0\0", 12))}, failed, "cut.gguf");
  expect_error({"inspect", "a.gguf", "-m", "b.gguf"}, usage, "not both");
}

TEST_F(Cli, TruncatedModels) {
  const std::string whole = tiny_model();
  const auto size = std::filesystem::file_size(whole);
  ASSERT_EQ(bough({"inspect", whole}).exit_code, 0);
  for (const uintmax_t keep : {size - 1, size / 2, size / 8, uintmax_t{24}}) {
    const std::string cut = folder_ + "/cut.gguf";
    std::filesystem::copy_file(whole, cut, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(cut, keep);
    expect_error({"inspect", cut}, failed, "cut.gguf");
    expect_error({"run", "a", "-m", cut}, failed, "cut.gguf");
    expect_error({"tokenize", "a", "-m", cut}, failed, "cut.gguf");
  }
}

TEST_F(Cli, ATinyModelRuns) {
  const std::string model = tiny_model();
  const Ran ran = bough({"run", "The sky is blue.", "-n", "5", "-m", model, "--json"});
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr(R"("event":"summary")"));
  const Ran asked = bough({"ask", text_, text_, "Why?", "-n", "5", "-m", model});
  EXPECT_EQ(asked.exit_code, 0) << asked.err;
  EXPECT_THAT(asked.err, HasSubstr("tokens/s"));
  EXPECT_THAT(asked.err, HasSubstr("peak memory"));
  const Ran count = bough({"tokenize", "--count", "-m", model}, "abc");
  EXPECT_EQ(count.exit_code, 0);
  EXPECT_EQ(count.out, "3\n");
}

TEST_F(Cli, AnswerOptions) {
  const std::string model = tiny_model();
  const std::string grammar = file("digits.gbnf", "root ::= [0-9]{3} \"]\"\n");
  const std::vector<std::string> words = {"run", "abc", "-m", model, "--json", "--temp", "1", "--grammar", grammar};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = words;
    all.insert(all.end(), more.begin(), more.end());
    const Ran ran = bough(all);
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    return ran.out;
  };
  EXPECT_THAT(with({}), ContainsRegex(R"("answer":"[0-9][0-9][0-9]]","finish":"end_of_text")"));
  EXPECT_THAT(with({"--stop", "]"}), ContainsRegex(R"("answer":"[0-9][0-9][0-9]","finish":"stop")"));
  EXPECT_THAT(with({"--logit-bias", "51=1000", "--logit-bias", "52=-inf"}), HasSubstr(R"("answer":"000]")"));
  EXPECT_THAT(with({"--logprobs", "2", "--top-k", "5"}),
              ContainsRegex(R"("logprobs":\[\{"token":[0-9]+,"text":"[0-9]","logprob":-[^]]*"top":\[)"));
  const Ran list = bough({"ask", text_, "Why?", "-m", model, "-n", "3", "--stop", "[a, b]", "--stop", "c"});
  EXPECT_EQ(list.exit_code, 0) << list.err;
  const Ran object = bough({"run", "abc", "-m", model, "--json-schema", R"({"const":"x"})"});
  EXPECT_EQ(object.out, "\"x\"\n");
}

TEST_F(Cli, BadAnswerOptions) {
  const std::string model = tiny_model();
  expect_error({"run", "a", "-m", model, "--grammar", folder_ + "/none.gbnf"}, failed, "none.gbnf");
  expect_error({"run", "a", "-m", model, "--grammar", file("bad.gbnf", "root ::= nowhere")}, usage, "nowhere");
  expect_error({"run", "a", "-m", model, "--json-schema", "{"}, usage, "the JSON schema cannot be used");
  expect_error({"run", "a", "-m", model, "--logit-bias", "5"}, usage, "'5' is not ID=VALUE");
  expect_error({"run", "a", "-m", model, "--logit-bias", "99999=1"}, usage, "token 99999 is outside the vocabulary");
  expect_error({"run", "a", "-m", model, "--logit-bias", "5=1e9"}, usage, "the logit bias of token 5 is 1e+09");
  expect_error({"run", "a", "-m", model, "--stop", ""}, usage, "stop string 1 is empty");
  expect_error({"run", "a", "--grammar", "a", "--json-schema", "{}"}, usage, "--grammar excludes --json-schema");
}

TEST_F(Cli, TokenizeTakesTheFirstTokens) {
  const Ran head = bough({"tokenize", "--head", "4", "-m", tiny_model()}, "0123456789");
  EXPECT_EQ(head.exit_code, 0) << head.err;
  EXPECT_EQ(head.out, "0123");
  const Ran lines = bough({"tokenize", "--json", "-m", tiny_model()}, "\xC3\xA9");
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 2) << "a character in two tokens keeps to its lines";
}

TEST_F(Cli, InterruptEndsTheAnswer) {
  const Ran ran = run_program({BOUGH_CLI, "run", "a", "-n", "1000000", "-m", tiny_model(), "--json"}, {.interrupt_at_output = true});
  EXPECT_EQ(ran.exit_code, 130) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr(R"("finish":"cancelled")"));
}

TEST_F(Cli, TheDefaultModelMissing) {
  const Ran ran = bough({"run", "a"});
  EXPECT_EQ(ran.exit_code, failed);
  EXPECT_THAT(ran.err, HasSubstr(folder_ + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"));
  EXPECT_THAT(ran.err, HasSubstr("tools/fetch_model.sh"));
}

TEST_F(Cli, StandardInputIsReadAsAFile) {
  const Ran binary = bough({"ask", "-", "why?"}, std::string("a\0b", 3));
  EXPECT_EQ(binary.exit_code, failed);
  EXPECT_THAT(binary.err, HasSubstr("standard input is not text: byte 1 is NUL"));
}

}  // namespace
}  // namespace bough
