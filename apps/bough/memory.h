// Memory of this machine and of this process, in bytes; 0 when it cannot be known.
#pragma once

#include <cstdint>

namespace bough::cli {

int64_t total_memory();      // of the machine, or of the control group if that is less
int64_t available_memory();  // that can still be taken without swapping
int64_t peak_memory();       // most that this process has held (VmHWM)

}  // namespace bough::cli
