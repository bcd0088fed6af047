#include "text/child.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "text/child_end.h"

namespace bough {
namespace {

using Clock = std::chrono::steady_clock;

// Waits until the socket is ready for `events`; false when the deadline has passed.
bool wait_for(int socket, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{socket, events, 0};
    if (poll(&wait, 1, static_cast<int>(left)) > 0) return true;
  }
}

bool is_whole(const std::string& bytes) {
  ChildHeader header;
  if (bytes.size() < sizeof header) return false;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header.mark == ChildHeader::kMark && bytes.size() - sizeof header == header.bytes;
}

}  // namespace

Result<std::string> Child::start(const ChildFirst& first, const ChildAnswer& answer) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status(Code::internal, std::string("Cannot open a socket: ") + std::strerror(errno) + ".");
  }
  pid_ = fork();
  if (pid_ == 0) be_child(ends[1], what_, limits_, first, answer);
  const int fork_error = errno;
  close(ends[1]);
  socket_ = ends[0];
  if (pid_ < 0) return Status(Code::internal, std::string("Cannot start a child process: ") + std::strerror(fork_error) + ".");
  return read_reply();
}

Result<std::string> Child::ask(std::string_view request) {
  if (pid_ < 0) return Status(Code::unsupported, what_ + " has no child process any more.");
  BOUGH_RETURN_IF_ERROR(write_request(request));
  return read_reply();
}

// A child that has ended is found out by reading.
Status Child::write_request(std::string_view request) {
  ChildHeader header;
  header.bytes = request.size();
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  bytes += request;
  const auto deadline = Clock::now() + std::chrono::seconds(limits_.seconds);
  for (size_t at = 0; at < bytes.size();) {
    if (!wait_for(socket_, POLLOUT, deadline)) return explain(true, end(true));
    const ssize_t n = ::send(socket_, bytes.data() + at, bytes.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) at += static_cast<size_t>(n);
    if (n < 0 && errno != EINTR && errno != EAGAIN) break;
  }
  return {};
}

// Reads until the child has said all, ended or is late.
Result<std::string> Child::read_reply() {
  const auto deadline = Clock::now() + std::chrono::seconds(limits_.seconds);
  std::string bytes;
  bool late = false;
  bool closed = false;
  char buffer[1 << 16];
  while (!is_whole(bytes) && bytes.size() <= limits_.output_bytes + (size_t{1} << 20)) {
    if (!wait_for(socket_, POLLIN, deadline)) {
      late = true;
      break;
    }
    const ssize_t n = read(socket_, buffer, sizeof buffer);
    closed = n == 0 || (n < 0 && errno != EINTR);
    if (closed) break;
    if (n > 0) bytes.append(buffer, static_cast<size_t>(n));
  }
  // One that closed its socket is about to end by itself, and how it does is told.
  if (!is_whole(bytes)) return explain(late, end(!closed));
  ChildHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes.erase(0, sizeof header);
  if (header.code == Code::ok) return bytes;
  return Status(header.code, std::move(bytes));
}

// 0 where it cannot be known how it ended (a host that ignores SIGCHLD reaps children itself).
int Child::end(bool kill_it) {
  if (socket_ >= 0) close(std::exchange(socket_, -1));
  const pid_t child = std::exchange(pid_, -1);
  if (child <= 0) return 0;
  if (kill_it) kill(child, SIGKILL);
  int how = 0;
  pid_t got = 0;
  do {
    got = waitpid(child, &how, 0);
  } while (got < 0 && errno == EINTR);
  return got == child ? how : 0;
}

Status Child::explain(bool late, int how) const {
  std::string sentence(what_);
  if (late || (WIFSIGNALED(how) && (WTERMSIG(how) == SIGXCPU || WTERMSIG(how) == SIGKILL))) {
    sentence += " takes more than " + std::to_string(limits_.seconds) + " seconds.";
  } else if (WIFSIGNALED(how)) {
    sentence += " crashed its child process with signal " + std::to_string(WTERMSIG(how)) + " (nesting too deep, or out of its " +
                std::to_string(limits_.memory_bytes >> 20) + " MiB of memory).";
  } else {
    sentence += " ended its child process without an answer (exit status " + std::to_string(WEXITSTATUS(how)) + ").";
  }
  return {Code::unsupported, sentence};
}

Result<std::string> run_in_child(std::string_view what, const ChildLimits& limits, const ChildFirst& body) {
  return Child(std::string(what), limits).start(body);
}

}  // namespace bough
