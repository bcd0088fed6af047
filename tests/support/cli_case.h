// Tests of the program over a tiny model and a cache of their own.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/run_program.h"
#include "support/temp_folder.h"

namespace bough::test {

class CliCase : public testing::Test {
 protected:
  CliCase();
  ~CliCase() override;

  // Runs `words` of the program with the model and expects this exit code.
  Ran bough(std::vector<std::string> words, const RunOptions& options = {}, int code = 0) const;

  TempFolder folder_;  // also the program's cache: no test sees or leaves a session of the user's
  std::string model_;
};

}  // namespace bough::test
