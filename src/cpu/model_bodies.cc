#include "cpu/model_bodies.h"

#include <ggml-cpu.h>

#include <array>

#include "cpu/packed_weights.h"
#include "ref/model_bodies.h"

namespace bough {

std::span<const ModelBodies> model_bodies() {
  static const bool initialised = [] {
    ggml_cpu_init();  // the tables of ggml's half-precision conversions
    return true;
  }();
  static const std::array<ModelBodies, 2> all{
      ModelBodies{"cpu", cpu::embed, cpu::norm, cpu::linear, cpu::activation, cpu::softcap, cpu::top, cpu::sample},
      ModelBodies{"ref", ref::embed, ref::norm, ref::linear, ref::activation, ref::softcap, ref::top, ref::sample}};
  return initialised ? std::span<const ModelBodies>(all) : std::span<const ModelBodies>();
}

void PackedWeightsDelete::operator()(PackedWeights* p) const { delete p; }

PackedWeightsPtr make_packed_weights(size_t budget) { return PackedWeightsPtr(new PackedWeights(budget)); }

}  // namespace bough
