// mass: what attend and attend_cached tell of their probabilities when they are asked. The results themselves do not change by a bit.
#pragma once

#include <cstdint>

namespace bough {

// A row is watched when it has somewhere to write: [hq, groups(size of its context)], the softmax probability that each query head
// gives to the ranks [keys g, keys (g + 1)). The groups of a row that sees any key sum to 1, of another to 0.
struct Mass {
  int keys = 8;                  // ranks a group: a power of two, at most 32
  float* const* rows = nullptr;  // [t], null where a row is not watched

  int64_t groups(int64_t context_size) const { return (context_size + keys - 1) / keys; }
};

}  // namespace bough
