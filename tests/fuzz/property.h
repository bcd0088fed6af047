// What a fuzz target asserts: a property that does not hold ends the process, which libFuzzer reports with the input.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "bough/status.h"

namespace bough::fuzz {

inline void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", property);
  std::abort();
}

// Every error is a sentence with a code.
inline void require_sentence(const Status& status) {
  require(status.ok() == status.message().empty(), "an error has a message, success has none");
}

}  // namespace bough::fuzz
