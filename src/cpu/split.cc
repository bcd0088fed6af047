#include "steps/split.h"

#include "cpu/cpu_bodies.h"

namespace bough::cpu {

void split(const SplitArgs& a) {
  const int parts = a.parent_chunk / a.chunk;
#pragma omp parallel for schedule(static) if (a.blocks > 1)
  for (int64_t list = 0; list < a.blocks * a.list_heads; ++list) {
    const int32_t* parent = a.parent + list * a.parent_capacity;
    const int32_t count = a.parent_count[list / a.list_heads];
    int32_t* child = a.start + list * a.capacity;
    for (int32_t i = 0; i < count; ++i) {
      for (int p = 0; p < parts; ++p) *child++ = parent[i] + p * a.chunk;
    }
    if (list % a.list_heads == 0) a.count[list / a.list_heads] = count * parts;
  }
}

}  // namespace bough::cpu
