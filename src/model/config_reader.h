// The keys of one architecture in a model file, read with their limits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "bough/status.h"
#include "model/gguf.h"

namespace bough {

// Errors of all calls: corrupt, naming the whole key, its value and the limit.
class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  const GgufFile& file() const { return file_; }
  std::string key(std::string_view name) const { return prefix_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.find(key(name)) != nullptr; }

  // An integer from `least` to `most`; a missing key gives `fallback`, or is an error when there is none.
  Status read(std::string_view name, uint64_t least, uint64_t most, std::optional<uint64_t> fallback, uint64_t& value) const;
  // An integer from 1 to `most`; REQUIRED in the file.
  Status read(std::string_view name, uint64_t most, int& value) const;
  // A finite number above 0 and at most `most`.
  Status read_positive(std::string_view name, double most, std::optional<double> fallback, double& value) const;
  // A finite number from 0 to `most`; 0 when the key is missing.
  Status read_or_zero(std::string_view name, double most, float& value) const;
  Status read_text(std::string_view name, std::string_view fallback, std::string_view& value) const;

 private:
  const GgufFile& file_;
  std::string prefix_;
};

// The shortest usual form, for error messages.
std::string number_text(double value);

}  // namespace bough
