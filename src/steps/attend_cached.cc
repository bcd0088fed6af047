#include "steps/attend_cached.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace bough {

bool grow_working_set(int kv_heads, size_t tile_bytes, int64_t keys, WorkingSet& set) {
  if (keys <= set.capacity) return true;
  WorkingSet grown;
  grown.capacity = (std::max(keys, set.capacity + set.capacity / 2) + 31) / 32 * 32;
  grown.tile_bytes = tile_bytes;
  grown.kv_heads = kv_heads;
  grown.size = set.size;
  const size_t bytes = static_cast<size_t>(kv_heads) * 2 * static_cast<size_t>(grown.capacity / 32) * tile_bytes;
  grown.data.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}, std::nothrow)));
  if (grown.data == nullptr) return false;
  madvise(grown.data.get(), bytes, MADV_HUGEPAGE);
  std::memset(grown.data.get(), 0, bytes);  // unused lanes of the last tile are multiplied by zero weights and must be finite
  const auto held = static_cast<size_t>((set.size + 31) / 32) * tile_bytes;
  for (int head = 0; head < kv_heads && held > 0; ++head) {
    std::memcpy(grown.k_tile(head, 0), set.k_tile(head, 0), held);
    std::memcpy(grown.v_tile(head, 0), set.v_tile(head, 0), held);
  }
  set = std::move(grown);
  return true;
}

}  // namespace bough
