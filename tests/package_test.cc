// The installed package: what libbough.so exports, and the examples built against it as a user would, with CMake and with pkg-config.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/run_program.h"
#include "support/tiny_gguf.h"

namespace bough {
namespace {

namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::StartsWith;

std::string must_run(std::vector<std::string> words) {
  words.insert(words.begin(), "/usr/bin/env");  // looks the program up
  const Ran ran = run_program(words);
  EXPECT_EQ(ran.exit_code, 0) << testing::PrintToString(words) << "\n" << ran.out << ran.err;
  return ran.out;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Demangled names of the defined symbols of these types, without versions.
std::set<std::string> symbols(const std::vector<std::string>& words, const std::string& types) {
  std::set<std::string> names;
  std::istringstream lines(must_run(words));
  for (std::string line; std::getline(lines, line);) {
    std::smatch parts;
    if (const size_t tag = line.find("[abi:cxx11]"); tag != std::string::npos) line.erase(tag, 11);
    static const std::regex kLine("^[0-9a-f]+ ([A-Za-z]) ([^@]*)(@.*)?$");
    if (std::regex_match(line, parts, kLine) && types.find(*parts[1].first) != std::string::npos) names.insert(parts[2]);
  }
  return names;
}

std::set<std::string> exported() { return symbols({"nm", "-DC", "--defined-only", BOUGH_SHARED}, "TtBbDdRrVvWwiuGgSsA"); }

// The first words of lines that declare something at the outermost level of a public C++ header.
std::set<std::string> declared(const std::regex& pattern) {
  std::set<std::string> names;
  for (const fs::directory_entry& header : fs::directory_iterator(BOUGH_SOURCE_DIR "/include/bough")) {
    if (header.path().filename() == "c.h") continue;
    const std::string text = contents(header.path());
    for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) names.insert((*at)[1]);
  }
  return names;
}

TEST(Package, ExportsNothingButTheApi) {
  const std::set<std::string> classes = declared(std::regex("(?:^|\n)(?:class|struct) (?:\\[\\[nodiscard\\]\\] )?(\\w+)"));
  ASSERT_TRUE(classes.contains("Engine") && classes.contains("Status"));
  const std::set<std::string> functions = declared(std::regex("\n[\\w:<>]+ (\\w+)\\("));
  ASSERT_TRUE(functions.contains("parse_plan") && functions.contains("inspect_model"));
  std::set<std::string> unexpected;
  for (const std::string& name : exported()) {
    std::smatch parts;
    const bool c = name.starts_with("bough_");
    const bool cpp = std::regex_search(name, parts, std::regex("^bough::(\\w+)(::|\\()")) &&
                     (parts[2] == "::" ? classes : functions).contains(parts[1]) && name.find("::Impl::") == std::string::npos;
    if (!c && !cpp) unexpected.insert(name);
  }
  EXPECT_THAT(unexpected, testing::IsEmpty());
}

TEST(Package, ExportsAllOfTheApi) {
  const std::set<std::string> found = exported();
  std::set<std::string> missing;
  const std::string c = contents(BOUGH_SOURCE_DIR "/include/bough/c.h");
  const std::regex kCall("BOUGH_API [^;(]*?(bough_\\w+)\\(");
  for (std::sregex_iterator at(c.begin(), c.end(), kCall), end; at != end; ++at) {
    if (!found.contains((*at)[1])) missing.insert((*at)[1]);
  }
  const auto exports = [&](const std::string& start) {
    const auto at = found.lower_bound(start);
    return at != found.end() && at->starts_with(start);
  };
  for (const std::string& name : declared(std::regex("\n[\\w:<>]+ (\\w+)\\("))) {
    if (!exports("bough::" + name + "(")) missing.insert(name);
  }
  const std::set<std::string> classes = declared(std::regex("(?:^|\n)(?:class|struct) (?:\\[\\[nodiscard\\]\\] )?(\\w+)"));
  for (const std::string& name : symbols({"nm", "-C", "--defined-only", "--extern-only", BOUGH_STATIC, BOUGH_STATIC_ATTENTION}, "T")) {
    std::smatch parts;
    if (!std::regex_search(name, parts, std::regex("^bough::(\\w+)::~?\\w+\\(")) || !classes.contains(parts[1])) continue;
    if (name.find("::Impl::") == std::string::npos && !found.contains(name)) missing.insert(name);
  }
  EXPECT_THAT(missing, testing::IsEmpty());
}

class Installed : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = fs::path(BOUGH_BINARY_DIR) / "package" / "root";
    fs::remove_all(root_);
    must_run({BOUGH_CMAKE, "--install", BOUGH_BINARY_DIR, "--component", "library", "--prefix", root_.string()});
    model_ = (root_ / "tiny.gguf").string();
    EXPECT_TRUE(write_tiny_gguf(model_, {}, 7).ok());
    text_ = (root_ / "text.txt").string();
    std::ofstream(text_) << "The sky is blue. The letter lies in the desk.";
  }

  // The three programs in `folder` do what they say.
  static void expect_working(const fs::path& folder) {
    const std::string plans = must_run({(folder / "example_plan").string()});
    EXPECT_THAT(plans, HasSubstr("default: a query sees "));
    EXPECT_THAT(must_run({(folder / "example_plan").string(), "streaming", "0"}), HasSubstr("\"mode\":\"streaming\""));
    EXPECT_FALSE(must_run({(folder / "example_engine").string(), model_, text_, "What is blue?", "Where is the letter?"}).empty());
    const std::string answer = must_run({(folder / "example_c").string(), model_, "Is it blue?"});
    EXPECT_THAT(answer, ContainsRegex("^\\{.*\"ok\" ?: ?(true|false).*\\}\nfirst token: [0-9]+, log-probability -[0-9.]+\n$"));
    const Ran bad = run_program({(folder / "example_c").string(), text_, "x"});
    EXPECT_EQ(bad.exit_code, 1);
    EXPECT_THAT(bad.err, ContainsRegex("^error [0-9]: .*text.txt"));
  }

  static fs::path root_;
  static std::string model_;
  static std::string text_;
};

fs::path Installed::root_;
std::string Installed::model_;
std::string Installed::text_;

TEST_F(Installed, FoundByCMake) {
  const fs::path build = fs::path(BOUGH_BINARY_DIR) / "package" / "examples";
  fs::remove_all(build);
  must_run({BOUGH_CMAKE, "-S", BOUGH_SOURCE_DIR "/examples", "-B", build.string(), "-DCMAKE_PREFIX_PATH=" + root_.string(),
            "-DCMAKE_CXX_COMPILER=" BOUGH_CXX, "-DCMAKE_C_COMPILER=" BOUGH_CC});
  must_run({BOUGH_CMAKE, "--build", build.string()});
  expect_working(build);
}

TEST_F(Installed, FoundByPkgConfig) {
  const std::string pc = must_run({"find", root_.string(), "-name", "bough.pc"});
  const std::string folder = fs::path(pc.substr(0, pc.find('\n'))).parent_path().string();
  std::istringstream words(must_run({"PKG_CONFIG_PATH=" + folder, "pkg-config", "--cflags", "--libs", "bough"}));
  const std::vector<std::string> flags{std::istream_iterator<std::string>(words), {}};
  const std::string library = must_run({"PKG_CONFIG_PATH=" + folder, "pkg-config", "--variable=libdir", "bough"});
  const auto build = [&](std::vector<std::string> command, const std::string& source, const std::string& program) {
    command.insert(command.end(), {BOUGH_SOURCE_DIR "/examples/" + source, "-o", (root_ / program).string()});
    command.insert(command.end(), flags.begin(), flags.end());
    command.push_back("-Wl,-rpath," + library.substr(0, library.find('\n')));
    must_run(command);
  };
  build({BOUGH_CXX, "-std=c++20"}, "engine.cc", "example_engine");
  build({BOUGH_CXX, "-std=c++20"}, "plan.cc", "example_plan");
  build({BOUGH_CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"}, "c_api.c", "example_c");
  expect_working(root_);
}

}  // namespace
}  // namespace bough
