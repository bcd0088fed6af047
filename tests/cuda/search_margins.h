// Which chunks a search may select when every score is off by a little, as rounding in another order makes it.
//
// By definition and without a hole: each candidate has a range of scores, over both ways where a descent is close; a candidate is certain
// to survive a stage when fewer than `keep` others can be better, and certain not to when `keep` others must be. What is neither is a
// candidate of the next stage that may be there or not, which makes that stage's cut as wide as it has to be.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/paged_oracle.h"
#include "ref/search.h"

namespace bough::test {

// A chunk that a stage may be offered, or may keep.
struct Candidate {
  int64_t start = 0;
  bool certain = true;  // it is, whatever rounding does
};

// One query block. REQUIRES: the arguments outlive this.
class SearchMargins {
 public:
  SearchMargins(const Oracle& oracle, const Batch& batch, size_t block, std::span<const float> q);

  // What the first stage is offered by a block whose window starts at w0.
  std::vector<Candidate> grid(int64_t w0) const;
  // Of ascending candidates those that may survive a stage.
  std::vector<Candidate> survivors(int list_head, int stage, std::vector<Candidate> candidates, int64_t w0) const;
  // All that may be selected in the end.
  std::vector<Candidate> selected(int list_head, int64_t w0) const;

 private:
  struct Range {
    double low = 0;
    double high = 0;
  };
  // One KV head's side of a stage's search.
  struct Head {
    ref::Search search;
    ref::Rows left;
    ref::Rows right;
  };

  int64_t keep(int stage) const;
  std::vector<Range> scores(int list_head, int stage, std::span<const Candidate> candidates) const;
  Range best_piece(const Head& head, const ScanPositions& positions, int64_t start, const StagePlan& stage, int64_t index) const;
  Range descend(const Head& head, const ScanPositions& positions, int64_t start, int chunk, int rounds, int64_t index,
                double tolerance) const;

  const Oracle& oracle_;
  const QueryBlock& block_;
  const PageTable& pages_;
  std::span<const float> q_;
};

// How a device's choices differ from the oracle's.
struct Difference {
  int64_t lists = 0;
  int64_t differing = 0;    // lists
  int64_t unexplained = 0;  // starts in one of two lists alone that no margin explains; of trees, lists that have less than half in common
  std::string first;        // of the unexplained
};
Difference compare(const Oracle& oracle, const Batch& batch, std::span<const float> q, std::span<const BlockChoice> got,
                   std::span<const BlockChoice> want);

}  // namespace bough::test
