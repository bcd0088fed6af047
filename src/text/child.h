// A computation that cannot be trusted with memory, time or its own stack, run in a forked child process.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "bough/status.h"

namespace bough {

struct ChildLimits {
  size_t memory_bytes = size_t{256} << 20;  // address space beyond what this process has when it forks
  size_t output_bytes = size_t{16} << 20;
  int seconds = 5;  // of processor time and, apart from it, of wall clock
};

// Runs `body` in a child and returns its string or its Status. A child that crashes, or exceeds a limit, gives `unsupported` and one
// sentence that starts with `what`; this process is never harmed. Errors also: internal (the system refuses pipe or fork).
//
// The caller may have many threads (OpenMP's among them): the child has only the calling one, so `body` must start no thread, enter
// no parallel region and wait for nobody. It reads what it captured, computes, and the child ends by _exit, running no destructor
// or exit handler. Should it meet a lock that another thread held at the fork, the wall clock ends it. The child closes every
// inherited descriptor and writes nowhere but into its pipe.
Result<std::string> run_in_child(std::string_view what, const ChildLimits& limits, const std::function<Result<std::string>()>& body);

}  // namespace bough
