#include "text/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace bough {
namespace {

// What the child sends first; `bytes` of text follow.
struct Header {
  uint32_t mark = kMark;
  Code code = Code::ok;
  uint64_t bytes = 0;

  static constexpr uint32_t kMark = 0x42474831;
};

std::string megabytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// ---- child ----

void set_limit(int resource, rlim_t soft, rlim_t hard) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  const rlim_t ceiling = limit.rlim_max;
  limit.rlim_max = ceiling == RLIM_INFINITY || hard < ceiling ? hard : ceiling;
  limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

// Bytes of address space that this process has.
rlim_t address_space() {
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  char text[64] = {};
  const ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
  if (file >= 0) close(file);
  unsigned long long pages = 0;
  if (n <= 0 || std::sscanf(text, "%llu", &pages) != 1) return 0;
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

// Leaves only `out`, moved to descriptor 3, and null devices below it.
void keep_only(int out) {
  const int null = open("/dev/null", O_RDWR);
  for (int target = 0; target < 3 && null >= 0; ++target) dup2(null, target);
  if (out != 3) dup2(out, 3);
  close_range(4, ~0U, 0);
}

void shut_in(const ChildLimits& limits) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU, SIGPIPE, SIGTERM, SIGINT}) signal(number, SIG_DFL);
  const auto seconds = static_cast<rlim_t>(limits.seconds);
  set_limit(RLIMIT_CORE, 0, 0);
  set_limit(RLIMIT_CPU, seconds, seconds + 1);
  if (const rlim_t now = address_space(); now > 0) {
    const rlim_t most = now + static_cast<rlim_t>(limits.memory_bytes);
    set_limit(RLIMIT_AS, most, most);
  }
}

void write_all(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = write(3, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void send(Code code, std::string_view text) {
  Header header;
  header.code = code;
  header.bytes = text.size();
  write_all(&header, sizeof header);
  write_all(text.data(), text.size());
}

[[noreturn]] void be_child(int out, std::string_view what, const ChildLimits& limits, const std::function<Result<std::string>()>& body) {
  keep_only(out);
  shut_in(limits);
  try {
    const Result<std::string> result = body();
    if (!result.ok()) {
      send(result.status().code(), result.status().message());
    } else if (result->size() > limits.output_bytes) {
      send(Code::unsupported, std::string(what) + " gives " + std::to_string(result->size()) + " bytes of text, more than " +
                                  megabytes(limits.output_bytes) + ".");
    } else {
      send(Code::ok, *result);
    }
  } catch (const std::bad_alloc&) {
    send(Code::unsupported, std::string(what) + " needs more than " + megabytes(limits.memory_bytes) + " of memory.");
  } catch (const std::exception& e) {
    send(Code::unsupported, std::string(what) + " fails: " + e.what() + ".");
  }
  _exit(0);
}

// ---- parent ----

using Clock = std::chrono::steady_clock;

struct Reading {
  bool late = false;
  std::string bytes;  // header and text, as far as they came

  bool whole() const {
    Header header;
    if (bytes.size() < sizeof header) return false;
    std::memcpy(&header, bytes.data(), sizeof header);
    return header.mark == Header::kMark && bytes.size() - sizeof header == header.bytes;
  }
};

// Reads until the child has said all, ended or is late.
Reading read_reply(int in, const ChildLimits& limits) {
  const auto deadline = Clock::now() + std::chrono::seconds(limits.seconds);
  Reading reading;
  char buffer[1 << 16];
  while (!reading.whole() && reading.bytes.size() <= limits.output_bytes + (size_t{1} << 20)) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      reading.late = true;
      break;
    }
    pollfd wait{in, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(left)) <= 0) continue;
    const ssize_t n = read(in, buffer, sizeof buffer);
    if (n == 0 || (n < 0 && errno != EINTR)) break;
    if (n > 0) reading.bytes.append(buffer, static_cast<size_t>(n));
  }
  return reading;
}

// Ends the child and tells how it ended; 0 where that cannot be known (a host that ignores SIGCHLD reaps children itself).
int reap(pid_t child, bool end_it) {
  if (end_it) kill(child, SIGKILL);
  int how = 0;
  pid_t got = 0;
  do {
    got = waitpid(child, &how, 0);
  } while (got < 0 && errno == EINTR);
  return got == child ? how : 0;
}

Status explain(std::string_view what, const ChildLimits& limits, bool late, int how) {
  std::string sentence(what);
  if (late || (WIFSIGNALED(how) && (WTERMSIG(how) == SIGXCPU || WTERMSIG(how) == SIGKILL))) {
    sentence += " takes more than " + std::to_string(limits.seconds) + " seconds.";
  } else if (WIFSIGNALED(how)) {
    sentence += " crashed its child process with signal " + std::to_string(WTERMSIG(how)) + " (nesting too deep, or out of its " +
                megabytes(limits.memory_bytes) + " of memory).";
  } else {
    sentence += " ended its child process without an answer (exit status " + std::to_string(WEXITSTATUS(how)) + ").";
  }
  return {Code::unsupported, sentence};
}

}  // namespace

Result<std::string> run_in_child(std::string_view what, const ChildLimits& limits, const std::function<Result<std::string>()>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status(Code::internal, std::string("Cannot open a pipe: ") + std::strerror(errno) + ".");
  const pid_t child = fork();
  if (child == 0) be_child(ends[1], what, limits, body);
  const int fork_error = errno;
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    return Status(Code::internal, std::string("Cannot start a child process: ") + std::strerror(fork_error) + ".");
  }
  const Reading reading = read_reply(ends[0], limits);
  close(ends[0]);
  const bool whole = reading.whole();
  const int how = reap(child, whole || reading.late);
  if (!whole) return explain(what, limits, reading.late, how);
  Header header;
  std::memcpy(&header, reading.bytes.data(), sizeof header);
  std::string text = reading.bytes.substr(sizeof header);
  if (header.code == Code::ok) return text;
  return Status(header.code, std::move(text));
}

}  // namespace bough
