// The bodies of the model's other steps, chosen once and by name.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "steps/activation.h"
#include "steps/embed.h"
#include "steps/linear.h"
#include "steps/logits.h"
#include "steps/norm.h"
#include "steps/sample.h"
#include "steps/softcap.h"
#include "steps/top.h"

namespace bough {

// All functions run their own parallel regions, are called from one thread and may throw std::bad_alloc; top and sample run in any
// thread and start none.
struct ModelBodies {
  std::string_view name;
  void (*embed)(const EmbedArgs&);
  void (*norm)(const NormArgs&);
  // Products of the same rows: all have the first one's x, rows, phase and w.cols, and each its own y.
  void (*linear)(std::span<const LinearArgs>);
  void (*activation)(const ActivationArgs&);
  void (*softcap)(const SoftcapArgs&);
  void (*top)(const TopArgs&);
  Result<TokenId> (*sample)(const SampleArgs&);
};

// "cpu" first, then the scalar oracle "ref".
std::span<const ModelBodies> model_bodies();

// Scores rows by `bodies`; decode rows and prefill rows each in their own phase.
void run_logits(const ModelBodies& bodies, const LogitsArgs& args);

struct PackedWeightsDelete {
  void operator()(PackedWeights* p) const;
};
using PackedWeightsPtr = std::unique_ptr<PackedWeights, PackedWeightsDelete>;

// Keeps weights in the form that prefill multiplies while they fit in `budget` bytes, and in decode's while these fit in as many. Beyond it
// prefill makes its form at every use and decode multiplies the file's rows.
PackedWeightsPtr make_packed_weights(size_t budget);

}  // namespace bough
