#include "cpu/cpu_bodies.h"

namespace bough::cpu {
namespace {

template <const TileOps* (*ops)()>
AttentionBodies over(const char* name) {
  AttentionBodies b{};
  b.name = name;
  b.kv_write = kv_write;
  b.scan = [](const ScanArgs& args) { scan(*ops(), args); };
  b.select = select;
  b.split = split;
  b.tree = [](const TreeArgs& args) { tree(*ops(), args); };
  b.attend = [](const AttendArgs& args) { attend(*ops(), args); };
  b.merge = merge;
  b.working_set_reserve = [](const KvShape& shape, int64_t keys, WorkingSet& set) { return working_set_reserve(*ops(), shape, keys, set); };
  b.working_set_build = [](const WorkingSetArgs& args) { working_set_build(*ops(), args); };
  b.attend_cached = [](const AttendCachedArgs& args) { attend_cached(*ops(), args); };
  b.key_means = key_means;
  return b;
}

}  // namespace

AttentionBodies bodies_amx() { return over<tile_amx>(tile_amx()->name); }
AttentionBodies bodies_bf16() { return over<tile_bf16>(tile_bf16()->name); }
AttentionBodies bodies_f32() { return over<tile_f32>("f32"); }

}  // namespace bough::cpu
