#include "steps/top.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "cpu/model_bodies.h"

namespace bough::cpu {
namespace {

constexpr int kBits = 12;  // of a key that choose its bucket: sign, exponent and three bits of the mantissa

// Ascending keys are descending floats; -0 counts as 0.
uint32_t key_of(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0F);
  const uint32_t ascending = bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000U);
  return ~ascending;
}

uint32_t bucket_of(float x) { return key_of(x) >> (32 - kBits); }

}  // namespace

// Buckets are counted, those that hold the highest `count` are gathered, and only these are sorted.
void top(const TopArgs& a) {
  std::vector<TokenId>& out = *a.out;
  out.clear();
  const auto count = static_cast<size_t>(std::min(a.count, static_cast<int64_t>(a.logits.size())));
  if (count == 0) return;
  std::array<uint32_t, size_t{1} << kBits> sizes{};
  for (const float x : a.logits) ++sizes[bucket_of(x)];
  size_t held = 0;
  uint32_t last = 0;
  while ((held += sizes[last]) < count) ++last;
  out.reserve(held);
  for (size_t i = 0; i < a.logits.size(); ++i) {
    if (bucket_of(a.logits[i]) <= last) out.push_back(static_cast<TokenId>(i));
  }
  const auto before = [&](TokenId x, TokenId y) {
    const float fx = a.logits[static_cast<size_t>(x)], fy = a.logits[static_cast<size_t>(y)];
    return fx > fy || (fx == fy && x < y);
  };
  const auto end = out.begin() + static_cast<std::ptrdiff_t>(count);
  if (end != out.end()) std::nth_element(out.begin(), end - 1, out.end(), before);
  out.resize(count);
  std::sort(out.begin(), out.end(), before);
}

}  // namespace bough::cpu
