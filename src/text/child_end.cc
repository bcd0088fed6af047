#include "text/child_end.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <csignal>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <new>

namespace bough {
namespace {

constexpr int kSocket = 3;
constexpr uint64_t kMaxRequestBytes = uint64_t{64} << 20;

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

// Leaves only the socket, moved to its own descriptor, and null devices below it.
void keep_only(int socket) {
  const int null = open("/dev/null", O_RDWR);
  for (int target = 0; target < kSocket && null >= 0; ++target) dup2(null, target);
  if (socket != kSocket) dup2(socket, kSocket);
  close_range(kSocket + 1, ~0U, 0);
}

// One that answers requests outlives the thread that forked it and a Ctrl-C; it ends when its socket closes.
void shut_in(const ChildLimits& limits, bool answers) {
  if (!answers) prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU, SIGPIPE, SIGTERM}) signal(number, SIG_DFL);
  signal(SIGINT, answers ? SIG_IGN : SIG_DFL);
  set_limit(RLIMIT_CORE, 0, 0);
  if (const rlim_t now = address_space(); now > 0) {
    const rlim_t most = now + static_cast<rlim_t>(limits.memory_bytes);
    set_limit(RLIMIT_AS, most, most);
  }
}

// Processor time for the next message.
void allow_seconds(int seconds) {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto spent = static_cast<rlim_t>(used.ru_utime.tv_sec + used.ru_stime.tv_sec + 1);
  set_limit(RLIMIT_CPU, spent + static_cast<rlim_t>(seconds), RLIM_INFINITY);
}

void write_all(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = write(kSocket, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(0);
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void read_all(void* data, size_t bytes) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = read(kSocket, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(0);
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void send(Code code, std::string_view text) {
  ChildHeader header;
  header.code = code;
  header.bytes = text.size();
  write_all(&header, sizeof header);
  write_all(text.data(), text.size());
}

template <typename Body>
void reply(const std::string& what, const ChildLimits& limits, const Body& body) {
  allow_seconds(limits.seconds);
  try {
    const Result<std::string> result = body();
    if (!result.ok()) {
      send(result.status().code(), result.status().message());
    } else if (result->size() > limits.output_bytes) {
      send(Code::unsupported, what + " gives " + std::to_string(result->size()) + " bytes of text, more than " +
                                  std::to_string(limits.output_bytes >> 20) + " MiB.");
    } else {
      send(Code::ok, *result);
    }
  } catch (const std::bad_alloc&) {
    send(Code::unsupported, what + " needs more than " + std::to_string(limits.memory_bytes >> 20) + " MiB of memory.");
  } catch (const std::exception& e) {
    send(Code::unsupported, what + " fails: " + e.what() + ".");
  }
}

}  // namespace

void be_child(int socket, const std::string& what, const ChildLimits& limits, const ChildFirst& first, const ChildAnswer& answer) {
  keep_only(socket);
  shut_in(limits, static_cast<bool>(answer));
  reply(what, limits, first);
  std::string request;
  while (answer) {
    ChildHeader header;
    read_all(&header, sizeof header);
    if (header.mark != ChildHeader::kMark || header.bytes > kMaxRequestBytes) break;
    reply(what, limits, [&] {
      request.resize(header.bytes);
      read_all(request.data(), request.size());
      return answer(request);
    });
  }
  _exit(0);
}

}  // namespace bough
