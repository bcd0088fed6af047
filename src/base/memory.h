// Memory of this machine and of this process, in bytes; 0 when it cannot be known. A control group (version 2) counts as the machine
// where it allows less, whether it holds this process alone or all of a container.
#pragma once

#include <cstdint>
#include <string>

namespace bough {

int64_t total_memory();
int64_t available_memory();  // that can still be taken without swapping
int64_t peak_memory();       // most that this process has held (VmHWM)

// As total_memory and available_memory; 0 where the group does not limit it.
struct GroupMemory {
  int64_t limit = 0;
  int64_t available = 0;
};
// The least of the group that a file in the form of /proc/self/cgroup names and of those above it, up to `root`.
GroupMemory group_memory(const std::string& self, const std::string& root);

}  // namespace bough
