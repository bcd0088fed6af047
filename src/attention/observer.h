// What a layer searched with and what it selected, shown to measurements.
#pragma once

#include <functional>
#include <span>

#include "attention/prune.h"

namespace bough {

// One layer of one step, after kv_write: the pages hold the batch's keys.
struct LayerView {
  const AttentionSetup& setup;
  const Batch& batch;
  int layer;
  const float* q;          // [t, hq, d] un-rotated, not scaled
  const BlockList& lists;  // of the decode blocks only those whose context was renewed in this step have a list
  const RopeTable& rope;
  int64_t keys_touched;               // by the layer's searches, see Pruner
  std::span<const BlockList> stages;  // what each stage kept, the last as `lists`; none where nothing is searched in stages
};

using LayerObserver = std::function<void(const LayerView&)>;

}  // namespace bough
