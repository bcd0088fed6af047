// AttentionState: what decode keeps between steps for one sequence. It belongs to the sequence, never to a row of a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "steps/attend_cached.h"
#include "steps/key_summary.h"

namespace bough {

// Tokens by which a sliding window's working set may hold more than the window.
inline constexpr int64_t kWindowGrain = 128;

// A stage's input lists when it last ran. INVARIANT: every token in [sinks, end) was offered to this stage or to one before it.
struct StageInput {
  std::vector<int32_t> start;  // [lh, count]
  int32_t count = 0;           // of each list head
  int64_t end = 0;
};

struct LayerState {
  // What the working set holds: nothing, every token from w0 on (0 unless the layer's window slides), or a pruned context.
  enum class Holds : uint8_t { nothing, run, pruned };

  Holds holds = Holds::nothing;
  WorkingSet set;
  std::vector<StageInput> inputs;  // of stages 1, 2, ...; valid when `searched`
  bool searched = false;
  int64_t grid_end = 0;           // end of the first stage's candidates when it last ran
  std::vector<int32_t> selected;  // [lh, selected_count] of the last run of the last stage
  int32_t selected_count = 0;
  int64_t w0 = 0;
  KeySummary summary;  // of the first stage's chunks
};

struct AttentionState {
  int64_t counter = 0;  // decode rows since the last append, rollback, fork or restore
  std::vector<LayerState> layers;

  // After an append, or a rollback to `length` tokens: the next decode row refreshes everything. A set that holds one run of tokens
  // keeps those that are still there, since their ranks stay the same; so does a summary.
  void restart(int64_t length) {
    counter = 0;
    for (LayerState& layer : layers) {
      layer.searched = false;
      layer.summary.truncate(length);
      if (layer.holds == LayerState::Holds::run) {
        layer.set.size = std::clamp<int64_t>(length - layer.w0, 0, layer.set.size);
      } else {
        layer.holds = LayerState::Holds::nothing;
        layer.set.size = 0;
      }
    }
  }
};

}  // namespace bough
