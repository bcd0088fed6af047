#include "steps/attention_bodies.h"

#include "cpu/cpu_bodies.h"
#include "ref/ref_bodies.h"

namespace bough {

std::span<const AttentionBodies> attention_bodies() {
  static const std::vector<AttentionBodies> all = [] {
    std::vector<AttentionBodies> list;
    if (cpu::tile_amx() != nullptr) list.push_back(cpu::bodies_amx());
    if (cpu::tile_bf16() != nullptr) list.push_back(cpu::bodies_bf16());
    list.push_back(cpu::bodies_f32());
    list.push_back(ref::bodies());
    return list;
  }();
  return all;
}

const AttentionBodies* pick_attention_bodies(DType kv, std::string_view name) {
  for (const AttentionBodies& body : attention_bodies()) {
    if (!name.empty() && body.name != name) continue;
    if (kv == DType::f32 && body.name.ends_with("_bf16")) continue;
    return &body;
  }
  return nullptr;
}

}  // namespace bough
