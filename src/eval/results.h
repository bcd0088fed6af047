// A file of finished cells, one JSON line each: a run goes on where an earlier one ended.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "eval/report.h"

namespace bough::eval {

class Results {
 public:
  // Without a file: cells are kept in memory only.
  Results() = default;
  // Makes the file if it is not there; the file is this object's alone while it lives. A last line that an ended process left without
  // its end is cut off. Errors: invalid_argument (another process writes to it; a line is no result, with its number), those of
  // FileSystem::open and File.
  static Result<Results> open(FileSystem& files, const std::string& path);

  // The finished cell of this key; null if there is none. Valid until the next add().
  const Cell* find(const Cell& asked) const;
  // Errors: invalid_argument when a cell of the file has other settings (both named).
  Status check(const Cell& asked) const;
  // Appends one line. Errors: io_error.
  Status add(const Cell& cell);

 private:
  std::string path_;
  std::shared_ptr<File> file_;
  uint64_t end_ = 0;  // of the last whole line, bytes
  std::vector<Cell> cells_;
};

}  // namespace bough::eval
