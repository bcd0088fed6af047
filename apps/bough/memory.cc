#include "memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace bough::cli {
namespace {

// The number after `name` in a file of "name value" lines.
std::optional<int64_t> field(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    int64_t value = 0;
    if (word == name && file >> value) return value;
    file.clear();
    file.ignore(1 << 16, '\n');
  }
  return std::nullopt;
}

std::optional<int64_t> single_number(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

int64_t kibibytes(const char* path, const char* name) { return field(path, name).value_or(0) * 1024; }

}  // namespace

int64_t total_memory() {
  const int64_t machine = kibibytes("/proc/meminfo", "MemTotal:");
  return std::min(machine, single_number("/sys/fs/cgroup/memory.max").value_or(machine));
}

int64_t available_memory() {
  const int64_t machine = kibibytes("/proc/meminfo", "MemAvailable:");
  const auto limit = single_number("/sys/fs/cgroup/memory.max");
  const auto used = single_number("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return machine;
  const int64_t cached = field("/sys/fs/cgroup/memory.stat", "inactive_file").value_or(0);  // given back under pressure
  return std::clamp<int64_t>(*limit - *used + cached, 0, machine);
}

int64_t peak_memory() { return kibibytes("/proc/self/status", "VmHWM:"); }

}  // namespace bough::cli
