// split: the chunks that survive a stage, cut into the next stage's smaller chunks.
#pragma once

#include <cstdint>

namespace bough {

struct SplitArgs {
  int64_t blocks = 0;
  int list_heads = 1;
  const int32_t* parent = nullptr;        // [nb, lh, parent_capacity] ascending
  const int32_t* parent_count = nullptr;  // [nb]
  int64_t parent_capacity = 0;
  int parent_chunk = 0;
  int chunk = 0;             // divides parent_chunk
  int32_t* start = nullptr;  // [nb, lh, capacity] out, ascending
  int32_t* count = nullptr;  // [nb] out
  int64_t capacity = 0;
};

}  // namespace bough
