// MassWatch: the attention mass of watched rows, on its way from the attend steps to the tallies of their sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/prune.h"
#include "attention/tally.h"

namespace bough {

// For one engine step. The batch and the tallies must outlive it.
class MassWatch {
 public:
  // tallies: by sequence of the batch, null where nothing is watched; empty: nowhere.
  MassWatch(const AttentionSetup* setup, const Batch* batch, std::span<SourceTally* const> tallies);

  // Room for one layer's mass: what the attend steps write to; null when no row is watched. Called when the lists and the working sets
  // of the layer are there. The result is valid until the next call. Throws std::bad_alloc.
  const Mass* prepare(int layer, const BlockList& lists, std::span<AttentionState* const> states);
  // After the attend steps of the layer.
  void deliver();

 private:
  struct Row {
    int64_t row = 0;    // in the batch
    int64_t block = 0;  // its query block
    SourceTally* tally = nullptr;
    std::vector<Context> contexts;  // [lh]
    int64_t offset = 0;             // in mass_
  };

  const AttentionSetup* setup_;
  const Batch* batch_;
  std::vector<Row> watched_;
  std::vector<float> mass_;
  std::vector<float*> rows_;  // [t]
  Mass out_;
};

}  // namespace bough
