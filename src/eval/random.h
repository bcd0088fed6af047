// Seeded draws that are the same on every machine (SplitMix64).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace bough::eval {

class Random {
 public:
  // Streams of one seed are independent of each other.
  Random(uint64_t seed, uint64_t stream) : state_(mixed(seed) + stream) {}

  uint64_t next() {
    const uint64_t value = mixed(state_);
    state_ += step;
    return value;
  }

  // 0 .. count - 1. REQUIRES: count >= 1.
  uint64_t below(uint64_t count) { return next() % count; }

  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  static constexpr uint64_t step = 0x9E3779B97F4A7C15ull;

  static uint64_t mixed(uint64_t x) {
    x += step;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
  }

  uint64_t state_;
};

}  // namespace bough::eval
