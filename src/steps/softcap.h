// softcap: x = cap * tanh(x / cap), in place.
#pragma once

#include <cstdint>

namespace bough {

struct SoftcapArgs {
  float* x = nullptr;  // [count]
  int64_t count = 0;
  float cap = 0;  // above 0
};

}  // namespace bough
