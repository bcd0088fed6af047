#include "support/cli_case.h"

#include <cstdlib>

#include "support/tiny_gguf.h"

namespace bough::test {

CliCase::CliCase() : model_(folder_ / "tiny.gguf") {
  setenv("BOUGH_CACHE", folder_.path().c_str(), 1);
  EXPECT_TRUE(write_tiny_gguf(model_, {}, 7).ok());
}

CliCase::~CliCase() { unsetenv("BOUGH_CACHE"); }

Ran CliCase::bough(std::vector<std::string> words, const RunOptions& options, int code) const {
  words.insert(words.begin(), BOUGH_CLI);
  words.insert(words.end(), {"-m", model_});
  const Ran ran = run_program(words, options);
  EXPECT_EQ(ran.exit_code, code) << ran.err;
  return ran;
}

}  // namespace bough::test
