#include "ref/ref_bodies.h"

namespace bough::ref {

AttentionBodies bodies() {
  return {"ref", kv_write, scan, select, split, tree, attend, merge, working_set_reserve, working_set_build, attend_cached, key_means};
}

}  // namespace bough::ref
