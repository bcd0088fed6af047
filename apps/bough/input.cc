#include "input.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/memory.h"
#include "format.h"

namespace bough::cli {
namespace {

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd > STDIN_FILENO) close(fd);
  }
};

std::string shown(const std::string& path) { return path == "-" ? "standard input" : "'" + path + "'"; }

// Length of the valid UTF-8 character that `text` starts with, 0 if it starts with none.
size_t character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return 0;
  if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return 0;
  return size;
}

Status io_failure(const std::string& path) { return Status(Code::io_error, shown(path) + " cannot be read: " + std::strerror(errno)); }

Status check_kind(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return io_failure(path);
  if (S_ISDIR(info.st_mode)) return Status(Code::invalid_argument, shown(path) + " is a directory, and a text file is needed");
  const int64_t free = available_memory();
  if (S_ISREG(info.st_mode) && free > 0 && info.st_size > free) {
    return Status(Code::out_of_memory, shown(path) + " has " + byte_text(static_cast<double>(info.st_size)) + ", and " +
                                           byte_text(static_cast<double>(free)) + " of memory are free");
  }
  return Status();
}

// Reads to the end; a NUL byte ends it at once, so that an endless device does not fill the memory.
Result<std::string> read_all(int fd, const std::string& path) {
  constexpr size_t step = 1 << 20;
  std::string text;
  while (true) {
    const size_t held = text.size();
    text.resize(held + step);
    ssize_t got = 0;
    do {
      got = read(fd, text.data() + held, step);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return io_failure(path);
    text.resize(held + static_cast<size_t>(got));
    const size_t nul = text.find('\0', held);
    if (nul != std::string::npos) {
      return Status(Code::invalid_argument, shown(path) + " is not text: byte " + grouped(static_cast<int64_t>(nul)) + " is NUL");
    }
    if (got == 0) return text;
  }
}

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

// As it is, a byte order mark included.
Result<std::string> read_whole(const std::string& path) {
  Descriptor file{path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) {
    if (errno == ENOENT) return Status(Code::not_found, "there is no file " + shown(path));
    return io_failure(path);
  }
  BOUGH_RETURN_IF_ERROR(check_kind(file.fd, path));
  return read_all(file.fd, path);
}

}  // namespace

int64_t invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t size = character(text.substr(at));
    if (size == 0) return static_cast<int64_t>(at);
    at += size;
  }
  return -1;
}

Status check_text(std::string_view text, const std::string& name) {
  const int64_t bad = invalid_utf8(text);
  if (bad < 0) return Status();
  return Status(Code::invalid_argument, name + " is not UTF-8 text: byte " + grouped(bad) + " is part of no character");
}

Result<std::string> read_text(const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(const Texts one, read_texts({path}));
  return one.all;
}

Result<Texts> read_texts(const std::vector<std::string>& paths) {
  Texts texts;
  for (const std::string& path : paths) {
    BOUGH_ASSIGN_OR_RETURN(const std::string whole, read_whole(path));
    const size_t skipped = whole.starts_with(byte_order_mark) ? byte_order_mark.size() : 0;
    const std::string_view text = std::string_view{whole}.substr(skipped);
    if (text.empty()) return Status(Code::invalid_argument, shown(path) + " is empty");
    BOUGH_RETURN_IF_ERROR(check_text(text, shown(path)));
    if (paths.size() > 1) texts.all += (texts.all.empty() ? "File: " : "\n\nFile: ") + (path == "-" ? "standard input" : path) + "\n\n";
    const size_t begin = texts.all.size();
    texts.all += text;
    texts.parts.push_back({path, begin, texts.all.size(), skipped});
  }
  return texts;
}

}  // namespace bough::cli
