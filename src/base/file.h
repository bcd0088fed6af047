// Files behind an interface, so that tests can make any read or write fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bough/status.h"

namespace bough {

// An open file. Closed when it goes. Every error names the path and what the system said. read() is thread-safe.
class File {
 public:
  virtual ~File() = default;

  // Fills `out` from `offset` on. Errors: corrupt when the file ends before, io_error.
  virtual Status read(uint64_t offset, std::span<std::byte> out) const = 0;
  // `bytes` bytes from `offset` on in memory, read from the file when they are needed and, where memory is short, again; aligned as the
  // offset is, up to a page of the system. Changes there do not reach the file. The file may be removed, renamed and added to while the
  // view lives, but not cut within it: the system ends a process that touches what is gone. Errors: corrupt when the file ends before,
  // io_error, out_of_memory.
  virtual Result<std::shared_ptr<std::byte>> map(uint64_t offset, uint64_t bytes) const = 0;
  // Writes all of `bytes` at `offset`. Errors: io_error; then some of the bytes may be there.
  virtual Status write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Status truncate(uint64_t bytes) = 0;
  // Returns when everything written is on the device.
  virtual Status sync() = 0;
  // Asks the system to begin writing this range to the device; returns at once.
  virtual void start_sync(uint64_t offset, uint64_t bytes) = 0;
  virtual Result<uint64_t> size() const = 0;
  // Takes the file's one writer's lock, which goes with the file; false when another open file holds it.
  virtual Result<bool> try_lock() = 0;
  // Whether `path` still names this very file (and not another one or none).
  virtual Result<bool> is_at(const std::string& path) const = 0;
  // Makes now the time of the last change.
  virtual Status touch() = 0;
};

struct FileStatus {
  std::string name;      // within its folder
  uint64_t bytes = 0;    // that it takes on the device
  int64_t modified = 0;  // nanoseconds since 1970
};

enum class OpenMode : uint8_t {
  read,    // must exist
  update,  // read and write; must exist
  create,  // read and write; made, readable by its owner alone, if it is not there
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Errors: not_found, invalid_argument (a directory), io_error.
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  // Puts the file in the place of `to`, at once or not at all; durable when it returns.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Errors: not_found, io_error.
  virtual Status remove(const std::string& path) = 0;
  // The folder and those above it, for its owner alone; no error when it is there.
  virtual Status make_folder(const std::string& path) = 0;
  // The regular files of a folder, in no order. Errors: not_found, io_error.
  virtual Result<std::vector<FileStatus>> list(const std::string& folder) = 0;
  // Bytes that may still be written where `path` lies.
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
};

// Brings this part of a view into memory, so that a device's failure is seen here. Errors: io_error.
Status fetch(const std::byte* at, size_t bytes);
// From now on what is touched of this part of a view is read without what lies around it. A system may read megabytes ahead, of which a
// search among keys wants kilobytes, and which drive out of memory what it wants next.
void expect_sparse_use(const std::byte* at, size_t bytes);

// The machine's own.
FileSystem& machine_files();

}  // namespace bough
