// SourceTally: which parts of the text the watched rows of a sequence look at.
//
// A query head that fetches something from the text puts much of its probability on few keys; heads that attend to everything a little
// say nothing. Each row, layer and query head therefore gives a unit of 8 tokens the cube of its probability there. Rows of the
// question and rows of the answer are averaged apart, so that a long answer does not outvote the question.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "steps/block_list.h"
#include "steps/shape.h"

namespace bough {

class SourceTally {
 public:
  static constexpr int kUnit = 8;  // tokens

  // Rows at positions [watched_from, answer_from) are the question's, later ones the answer's.
  SourceTally(int64_t watched_from, int64_t answer_from) : watched_from_(watched_from), answer_from_(answer_from) {}

  int64_t watched_from() const { return watched_from_; }

  // One row of one layer. contexts: the row's, [lh]; mass: [hq, groups of `keys` ranks]. Every layer's rows come in the same order.
  void add(int64_t position, const HeadShape& heads, std::span<const Context> contexts, int keys, const float* mass);

  // What the units [0, watched_from / 8) have got.
  std::vector<double> scores() const;

 private:
  struct Part {
    std::vector<float> units;  // sums of cubes
    int64_t end = 0;           // after the last position added
  };

  int64_t watched_from_;
  int64_t answer_from_;
  Part question_;
  Part answer_;
  std::vector<int32_t> unit_of_;  // of the pieces of at most 8 ranks that one context's groups consist of
};

}  // namespace bough
