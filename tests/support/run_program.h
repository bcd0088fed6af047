// Runs a program for a test: its output, what it said on stderr, its exit code.
#pragma once

#include <string>
#include <vector>

namespace bough {

struct Ran {
  int exit_code = -1;  // 128 + signal when a signal ended it, as shells count; -1 when it could not be run
  std::string out;
  std::string err;
};

struct RunOptions {
  std::string input;                 // what it reads on stdin
  bool interrupt_at_output = false;  // send SIGINT once something came on stdout
};

Ran run_program(const std::vector<std::string>& words, const RunOptions& options = {});

}  // namespace bough
