// The machine's files, where one operation fails, or all from one on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"

namespace bough::test {

class FaultyFiles final : public FileSystem {
 public:
  // Every operation on a file or a folder counts. A write that fails has written half of its bytes, whole words
  // of 8 as a system does.
  int64_t operations = 0;
  int64_t fail_at = -1;      // the number of the first one that fails; -1: none
  bool fail_on = false;      // those after it fail too
  bool writes_only = false;  // reads never fail, as on a full disk

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status make_folder(const std::string& path) override;
  Result<std::vector<FileStatus>> list(const std::string& folder) override;
  Result<uint64_t> free_bytes(const std::string& path) override;

  // Counts an operation: ok, or the error that it shall give.
  Status next(bool writes);
};

}  // namespace bough::test
