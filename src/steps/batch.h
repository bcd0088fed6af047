// The ragged view of one engine step: rows of several sequences side by side, and the flat list of their query blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/host_device.h"
#include "bough/types.h"
#include "steps/shape.h"

namespace bough {

// Rows [r0, r0 + rows) of one sequence that share a BlockList. In prefill the intersection of [B b, B (b + 1)) in absolute positions
// with the append's non-tail rows; in the tail and in decode one row.
struct QueryBlock {
  int32_t seq = 0;   // index into Batch::sequences
  int32_t row = 0;   // first row in the batch
  int32_t rows = 0;  // at least 1
  int64_t r0 = 0;    // absolute position of the first row

  BOUGH_HD int64_t r1() const { return r0 + rows; }
};

// INVARIANT: rows [0, decode_rows) are decode rows, one a sequence; the prefill rows follow. Every row belongs to one block, blocks
// are in row order: the first decode_rows blocks are the decode rows.
struct Batch {
  std::vector<TokenId> ids;          // [t]
  std::vector<int64_t> positions;    // [t] absolute
  std::vector<int32_t> row_seq;      // [t] index into sequences
  std::vector<PageTable> sequences;  // lengths include the rows of this batch
  std::vector<QueryBlock> blocks;
  std::vector<int32_t> logit_rows;  // rows whose logits are wanted, ascending
  int32_t decode_rows = 0;

  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  // Tokens of the longest sequence.
  int64_t longest() const {
    int64_t tokens = 0;
    for (const PageTable& sequence : sequences) tokens = std::max(tokens, sequence.length);
    return tokens;
  }
};

}  // namespace bough
