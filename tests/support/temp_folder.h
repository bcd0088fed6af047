// A folder for a test's files that goes away with this object.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace bough::test {

class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::vector<std::byte> file_bytes(const std::string& path);
void write_file(const std::string& path, const std::vector<std::byte>& bytes);

}  // namespace bough::test
