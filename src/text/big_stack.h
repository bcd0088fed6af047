// A call on a thread with a large stack, for libraries that recurse as deep as their input is long.
#pragma once

#include <cstddef>
#include <functional>

#include "bough/status.h"

namespace bough {

// Runs body(0) .. body(threads - 1) to their ends, each on a new thread with `stack_bytes` of stack (only the pages that it touches cost
// memory); an exception becomes a Status. Gives the error of the lowest number. Errors: what body returns, out_of_memory, internal.
Status run_on_big_stacks(size_t stack_bytes, int threads, const std::function<Status(int)>& body);

// The same conversion of exceptions, on the calling thread.
Status run_guarded(const std::function<Status()>& body);

}  // namespace bough
