// attend_cached: decode attention over a working set, the frozen context of one sequence and layer kept rotated in one buffer.
// working_set_build fills it from the pages, working_set_append adds the newest token at the next rank.
//
// A working set holds, for every KV head, tiles of 32 keys and of 32 values in the layout of the body that uses it; bodies that share
// a layout share the set. Splits of 512 keys are attended apart and merged, whatever the number of threads.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "steps/block_list.h"
#include "steps/mass.h"
#include "steps/positions.h"
#include "steps/rope.h"

namespace bough {

struct FreeDelete {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};

struct WorkingSet {
  std::unique_ptr<std::byte, FreeDelete> data;  // [hkv][tiles][K tile, V tile]
  int64_t capacity = 0;                         // keys, a multiple of 32
  int64_t size = 0;                             // keys held: ranks [0, size)
  int64_t query = 0;                            // where the row stands that attends to them next, as the last build said
  size_t tile_bytes = 0;                        // of one K or V tile
  int kv_heads = 0;

  std::byte* k_tile(int head, int64_t tile) const {
    return data.get() + (static_cast<size_t>(head) * 2 * static_cast<size_t>(capacity / 32) + static_cast<size_t>(tile)) * tile_bytes;
  }
  std::byte* v_tile(int head, int64_t tile) const { return k_tile(head, tile + capacity / 32); }
};

// Makes room for `keys` keys in tiles of `tile_bytes`, keeping what is held. False when memory is short; the set is unchanged then.
bool grow_working_set(int kv_heads, size_t tile_bytes, int64_t keys, WorkingSet& set);

struct WorkingSetArgs {
  const PageTable* pages = nullptr;
  KvShape kv;
  int layer = 0;
  const RopeTable* rope = nullptr;
  const Context* contexts = nullptr;  // [lh]
  int list_heads = 1;
  int64_t from = 0;  // ranks [from, context size) are (re)built
  PositionRule positions;
  WorkingSet* set = nullptr;
};

struct AttendCachedArgs {
  const Batch* batch = nullptr;  // its decode rows
  KvShape kv;
  HeadShape heads;
  const float* q = nullptr;                 // [t, hq, d] un-rotated, not scaled
  const WorkingSet* const* sets = nullptr;  // [decode_rows]; the row's own key is the last one held
  const RopeTable* rope = nullptr;
  int64_t window = 0;          // a row sees the last `window` keys of its set; 0: all
  float* o = nullptr;          // [t, hq, d]
  const Mass* mass = nullptr;  // or null: no row is watched; the context of a row is its set
};

inline constexpr int64_t kSplitKeys = 512;

}  // namespace bough
