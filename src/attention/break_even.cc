#include <array>

#include "bough/attention.h"

namespace bough {
namespace {

struct BreakEven {
  int major;
  int minor;
  int64_t tokens;
};

// Estimates go by memory bandwidth: what dense attention costs a token falls with it, what a refresh costs is mostly waiting.
constexpr std::array<BreakEven, 5> kTable = {{
    {8, 0, 4096},   // estimate
    {8, 6, 4096},   // estimate
    {8, 9, 4096},   // estimate
    {9, 0, 5120},   // measured: paged_bench short
    {10, 0, 8192},  // estimate
}};

}  // namespace

int64_t break_even_tokens(int major, int minor) {
  int64_t tokens = kTable.front().tokens;
  for (const BreakEven& row : kTable) {
    if (row.major < major || (row.major == major && row.minor <= minor)) tokens = row.tokens;
  }
  return tokens;
}

}  // namespace bough
