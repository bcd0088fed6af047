// BlockList: what each query block attends to besides its sinks and window, and the context in text order that follows from it:
//   [0, min(sinks, r1)) | selected chunks | [w0, r1)     numbered 0, 1, 2, ...: the ranks that keys and queries are rotated by.
#pragma once

#include <algorithm>
#include <cstdint>

#include "steps/batch.h"

namespace bough {

struct BlockList {
  const int64_t* w0 = nullptr;     // [nb] first token of the last interval, at most r1
  const int32_t* start = nullptr;  // [nb, lh, capacity] selected chunks, ascending, sinks <= start < w0
  const int32_t* count = nullptr;  // [nb]
  int list_heads = 1;
  int64_t capacity = 0;
  int chunk = 0;
  int64_t sinks = 0;

  const int32_t* list(int64_t block, int head) const { return start + (block * list_heads + (list_heads == 1 ? 0 : head)) * capacity; }
};

// One block's context for one KV head.
struct Context {
  int64_t sinks = 0;  // tokens of the first interval
  const int32_t* start = nullptr;
  int64_t selected = 0;  // tokens
  int chunk = 1;
  int64_t w0 = 0;
  int64_t r1 = 0;

  int64_t size() const { return sinks + selected + (r1 - w0); }
  int64_t token(int64_t rank) const {
    if (rank < sinks) return rank;
    rank -= sinks;
    if (rank < selected) return start[rank / chunk] + rank % chunk;
    return w0 + (rank - selected);
  }
};

inline Context context_of(const BlockList& lists, const QueryBlock& block, int64_t index, int head) {
  Context c;
  c.sinks = std::min(lists.sinks, std::min(block.r1(), lists.w0[index]));
  c.start = lists.list(index, head);
  c.selected = static_cast<int64_t>(lists.count[index]) * lists.chunk;
  c.chunk = lists.chunk;
  c.w0 = lists.w0[index];
  c.r1 = block.r1();
  return c;
}

// w0 of a block whose first row is r0: floor_c(r0 + 1 - window), at least sinks, at most r1. Signed arithmetic.
inline int64_t window_start(int64_t r0, int64_t r1, int64_t sinks, int64_t window, int chunk) {
  const int64_t x = r0 + 1 - window;
  const int64_t floored = (x >= 0 ? x / chunk : -((-x + chunk - 1) / chunk)) * chunk;
  return std::min(r1, std::max(sinks, floored));
}

}  // namespace bough
