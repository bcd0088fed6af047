// Scheduler: what sequences want to read or decode -> one ragged Batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bough/status.h"
#include "sched/sequence.h"
#include "steps/batch.h"

namespace bough {

// The piece of one sequence that a step takes.
struct Slice {
  Sequence* sequence = nullptr;
  std::span<const TokenId> tokens;  // decode: exactly one
  bool decode = false;
  int64_t tail_from = INT64_MAX;  // absolute position from which every row is a query block of its own
  int64_t logits = 0;             // of this many last rows
  SourceTally* tally = nullptr;   // of the rows that it watches
};

// Where a slice that starts at `from` ends: at most `most` tokens on, at a multiple of 64 unless it reaches `end`.
int64_t slice_end(int64_t from, int64_t end, int64_t most);

// Takes pages for the slices' tokens, appends the tokens to their sequences and lays out the batch; decode slices first. On error
// every sequence is as it was. Errors: invalid_argument (a decode slice of other than one token), out_of_memory.
Result<Batch> make_batch(std::span<const Slice> slices, int query_block);

}  // namespace bough
