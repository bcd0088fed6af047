#include "steps/split.h"

#include "ref/ref_bodies.h"

namespace bough::ref {

void split(const SplitArgs& a) {
  const int parts = a.parent_chunk / a.chunk;
  for (int64_t b = 0; b < a.blocks; ++b) {
    for (int lh = 0; lh < a.list_heads; ++lh) {
      const int32_t* parent = a.parent + (b * a.list_heads + lh) * a.parent_capacity;
      int32_t* child = a.start + (b * a.list_heads + lh) * a.capacity;
      for (int32_t i = 0; i < a.parent_count[b]; ++i) {
        for (int p = 0; p < parts; ++p) *child++ = parent[i] + p * a.chunk;
      }
    }
    a.count[b] = a.parent_count[b] * parts;
  }
}

}  // namespace bough::ref
