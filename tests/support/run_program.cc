#include "support/run_program.h"

#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bough {
namespace {

// A nameless file that holds `text`, at its start.
int input_file(const std::string& text) {
  std::FILE* file = std::tmpfile();
  if (file == nullptr) return -1;
  std::fwrite(text.data(), 1, text.size(), file);
  std::rewind(file);
  const int fd = dup(fileno(file));
  std::fclose(file);
  return fd;
}

[[noreturn]] void exec_program(const std::vector<std::string>& words, int in, int out, int err) {
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

bool drain(int fd, std::string& text) {
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got > 0) text.append(buffer, static_cast<size_t>(got));
  return got > 0;
}

}  // namespace

Ran run_program(const std::vector<std::string>& words, const RunOptions& options) {
  Ran ran;
  int out[2];
  int err[2];
  const int in = input_file(options.input);
  if (in < 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return ran;
  const pid_t child = fork();
  if (child == 0) exec_program(words, in, out[1], err[1]);
  close(in);
  close(out[1]);
  close(err[1]);
  pollfd waits[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  bool interrupt = options.interrupt_at_output;
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    if (poll(waits, 2, -1) < 0) continue;
    if (waits[0].revents != 0 && !drain(waits[0].fd, ran.out)) waits[0].fd = -1;
    if (waits[1].revents != 0 && !drain(waits[1].fd, ran.err)) waits[1].fd = -1;
    if (interrupt && !ran.out.empty()) {
      interrupt = false;
      kill(child, SIGINT);
    }
  }
  close(out[0]);
  close(err[0]);
  int status = 0;
  waitpid(child, &status, 0);
  ran.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

}  // namespace bough
