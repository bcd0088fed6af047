#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>

namespace bough {
namespace {

// The number after `name` in a file of "name value" lines.
std::optional<int64_t> field(const std::string& path, const std::string& name) {
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

std::optional<int64_t> single_number(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

int64_t kibibytes(const char* path, const char* name) { return field(path, name).value_or(0) * 1024; }

// Where neither limits, 0; where one does, that one.
int64_t least(int64_t a, int64_t b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

// The path after "0::", which begins with a slash; empty when there is none.
std::string own_group(const std::string& self) {
  std::ifstream file(self);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::/")) return line.substr(3);
  }
  return {};
}

GroupMemory memory_of(const std::string& group) {
  const auto limit = single_number(group + "/memory.max");
  const auto used = single_number(group + "/memory.current");
  if (!limit) return {};
  if (!used) return {*limit, *limit};
  const int64_t cached = field(group + "/memory.stat", "inactive_file").value_or(0);  // given back under pressure
  return {*limit, std::clamp<int64_t>(*limit - *used + cached, 1, std::max<int64_t>(*limit, 1))};
}

GroupMemory own_group_memory() { return group_memory("/proc/self/cgroup", "/sys/fs/cgroup"); }

}  // namespace

GroupMemory group_memory(const std::string& self, const std::string& root) {
  GroupMemory all;
  std::string group = own_group(self);
  while (true) {
    const GroupMemory one = memory_of(root + group);
    all = {least(all.limit, one.limit), least(all.available, one.available)};
    if (group.empty()) return all;
    group.resize(group.rfind('/'));
  }
}

int64_t total_memory() { return least(kibibytes("/proc/meminfo", "MemTotal:"), own_group_memory().limit); }

int64_t available_memory() { return least(kibibytes("/proc/meminfo", "MemAvailable:"), own_group_memory().available); }

int64_t peak_memory() { return kibibytes("/proc/self/status", "VmHWM:"); }

}  // namespace bough
