// The scalar oracle over the same texts: Bough's own host pages, the Pruner and attend with the bodies named "ref".
//
// Host pages are bf16 where q is bf16 and bf16 can hold every row of the cache: the oracle then rounds as the device does. Otherwise they
// are f32 and the oracle rounds nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/prune.h"
#include "attention/state.h"
#include "cuda/paged_run.h"

namespace bough::test {

class Oracle {
 public:
  explicit Oracle(const PagedCase& c);

  const PagedCase& paged_case() const { return case_; }
  const AttentionSetup& setup() const { return setup_; }
  const LayerPlan& layer() const { return setup_.layer(layer_index()); }
  int layer_index() const { return case_.spec().layer; }
  const RopeTable& rope() const { return rope_; }
  // Does it round as the device does?
  bool exact() const { return setup_.kv.type == DType::bf16; }
  PageTable pages(int text, int64_t length) const { return {tables_[static_cast<size_t>(text)].data(), length}; }

  // Query blocks as the scheduler lays them out: runs of 64 positions, then the tail's rows one by one.
  Batch batch(std::span<const Part> parts) const;
  std::vector<BlockChoice> prune(const Batch& batch, std::span<const float> q) const;
  Output attend(const Batch& batch, std::span<const float> q, std::span<const BlockChoice> choices) const;
  // Does a text of this length see everything, in every row?
  bool sees_all(int64_t length) const;

 private:
  BlockChoice prune_block(const Batch& batch, size_t block, std::span<const float> q) const;

  const PagedCase& case_;
  AttentionSetup setup_;
  RopeTable rope_;
  std::vector<std::byte> pool_;
  std::vector<std::vector<std::byte*>> tables_;
};

// One text decoded step by step. REQUIRES: the oracle outlives this.
class DecodeOracle {
 public:
  struct Step {
    Output out;
    // Some choice that this step's context depends on was so close that rounding may decide it.
    bool doubtful = false;
    LayerState::Holds holds = LayerState::Holds::nothing;
  };

  DecodeOracle(const Oracle& oracle, int text);

  // Of the text with `length` tokens, the last of which is the row's own.
  Step step(int64_t length);
  // The text grew by an append, or shrank, to `length` tokens.
  void restart(int64_t length) { state_.restart(length); }
  int64_t counter() const { return state_.counter; }

 private:
  Batch batch(int64_t length) const;
  void note_doubts(const Batch& batch, std::span<const float> q, int first);
  Output attend(const Batch& batch, std::span<const float> q) const;
  const LayerState& layer_state() const { return state_.layers[static_cast<size_t>(oracle_.layer_index())]; }

  const Oracle& oracle_;
  int text_;
  AttentionState state_;
  std::vector<bool> doubts_;  // of each stage's choice
};

// Attention of a part's rows over all that they may see, at true positions, the textbook way and in double.
Output textbook(const PagedCase& c, const Part& part);

// Fails the test where a row of `got` is farther from `want` than `tolerance`.
void expect_near(const PagedCase& c, const Output& got, const Output& want, double tolerance, const std::string& what);
// The greatest distance of any row, in o or lse.
double worst_distance(const PagedCase& c, const Output& got, const Output& want);

}  // namespace bough::test
