// Scores of keys against a few query rows, read where they lie: for searches of a row by itself, where packing a tile would cost more than
// multiplying it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bough/types.h"

namespace bough::cpu {

struct RowScoreOps {
  int lanes;  // floats of a vector

  // rows [count][d] in the order in which the elements of such keys are multiplied; may not overlap. REQUIRES: fits(d, type).
  void (*order)(const float* rows, int count, int d, DType type, float* ordered);
  // best[i] = max(best[i], rows[r] . key over all r and all keys of run i), for runs of `length` rows of `type`, a power of two, which
  // follow one another from first[i] on. The bits of a product depend on its key and row alone.
  void (*best_of_runs)(const float* ordered, int count, int d, const std::byte* const* first, int runs, int length, DType type,
                       float* best);

  // Other shapes and types have to be packed.
  bool fits(int d, DType type) const { return type != DType::i4 && d % (2 * lanes) == 0; }
};

// Highway, for the best instruction set of this CPU; null where that has no vectors, or none of a fixed length.
const RowScoreOps* row_score_ops();

}  // namespace bough::cpu
