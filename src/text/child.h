// Computations that cannot be trusted with memory, time or their own stack, run in a forked child process.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "bough/status.h"

namespace bough {

struct ChildLimits {
  size_t memory_bytes = size_t{256} << 20;  // address space beyond what this process has when it forks
  size_t output_bytes = size_t{16} << 20;   // of one reply
  int seconds = 5;                          // of processor time and, apart from it, of wall clock, for each reply
};

using ChildFirst = std::function<Result<std::string>()>;
using ChildAnswer = std::function<Result<std::string>(std::string_view request)>;

// A child process. What it does, crashes and exceeded limits included, comes back as a string or a Status: a child that crashes or
// exceeds a limit gives `unsupported` and one sentence that starts with `what`; this process is never harmed.
//
// The caller may have many threads (OpenMP's among them): the child has only the calling one, so its functions must start no thread,
// enter no parallel region and wait for nobody. They read what they captured and compute, and the child ends by _exit, running no
// destructor or exit handler. Should it meet a lock that another thread held at the fork, the wall clock ends it. The child closes
// every inherited descriptor and writes nowhere but into its socket.
class Child {
 public:
  Child(std::string what, const ChildLimits& limits) : what_(std::move(what)), limits_(limits) {}
  ~Child() { end(true); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Forks and returns what `first` gives. With an `answer` the child stays and waits for requests. Called once.
  // Errors: those of first; unsupported; internal (the system refuses socket or fork).
  Result<std::string> start(const ChildFirst& first, const ChildAnswer& answer = {});

  // Sends the request and returns what `answer` gives. After an error of the child itself (not of answer) every request fails.
  // REQUIRES: start with an answer was ok.
  Result<std::string> ask(std::string_view request);

 private:
  Result<std::string> read_reply();
  Status write_request(std::string_view request);
  int end(bool kill_it);  // waits for its end; how it ended
  Status explain(bool late, int how) const;

  std::string what_;
  ChildLimits limits_;
  int socket_ = -1;
  int pid_ = -1;
};

// Runs `body` in a child and returns its string or its Status.
Result<std::string> run_in_child(std::string_view what, const ChildLimits& limits, const ChildFirst& body);

}  // namespace bough
