// The bodies of the attention steps, chosen once and by name.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "steps/attend.h"
#include "steps/attend_cached.h"
#include "steps/key_means.h"
#include "steps/kv_write.h"
#include "steps/merge.h"
#include "steps/select.h"
#include "steps/split.h"
#include "steps/tree.h"

namespace bough {

// All functions but key_means run their own parallel regions and are called from one thread.
struct AttentionBodies {
  std::string_view name;
  void (*kv_write)(const KvWriteArgs&);
  void (*scan)(const ScanArgs&);
  void (*select)(const SelectArgs&);
  void (*split)(const SplitArgs&);
  void (*tree)(const TreeArgs&);
  void (*attend)(const AttendArgs&);
  void (*merge)(const MergeArgs&);
  // Makes room for `keys` (rounded up) and keeps what the set holds. False when memory is short; the set is unchanged then.
  bool (*working_set_reserve)(const KvShape&, int64_t keys, WorkingSet&);
  void (*working_set_build)(const WorkingSetArgs&);
  void (*attend_cached)(const AttendCachedArgs&);
  void (*key_means)(const KeyMeansArgs&);
};

// Every body that this CPU can run, the fastest first, the scalar oracle "ref" last.
std::span<const AttentionBodies> attention_bodies();

// The body to use for a KV type: f32 never uses a body that multiplies in bf16. `name` forces one (empty: the fastest); null if unknown.
const AttentionBodies* pick_attention_bodies(DType kv, std::string_view name = {});

}  // namespace bough
