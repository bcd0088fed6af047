// Exact attention of single rows over the queries and keys that a LayerView shows.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "attention/observer.h"

namespace bough::eval {

class ExactAttention {
 public:
  // true_positions: every key stands at its own position. Otherwise, for texts beyond the trained context, where true positions mean
  // nothing, all keys stand at the window's distance from the query.
  explicit ExactAttention(bool true_positions) : true_positions_(true_positions) {}

  // The keys [0, end) of one KV head of one of the batch's sequences, for the calls of attend() that follow.
  void load_keys(const LayerView& view, int sequence, int kv_head, int64_t end);
  // The softmax of one row of the batch and one query head over the keys up to its own, [position + 1]; 0 where the model's sliding
  // window hides a key. Valid until the next call. REQUIRES: the head's keys up to the row's position are loaded.
  std::span<const float> attend(const LayerView& view, int64_t row, int head);

 private:
  void turn(const RopeTable& rope, int64_t position, float* row, int dim);

  bool true_positions_;
  std::map<const RopeTable*, RopeTable> tables_;  // as the model's, for true positions
  int64_t end_ = 0;
  std::vector<float> keys_;  // [d][end]
  std::vector<float> scores_;
};

}  // namespace bough::eval
