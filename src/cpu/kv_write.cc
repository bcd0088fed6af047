#include "steps/kv_write.h"

#include <vector>

#include "cpu/cpu_bodies.h"
#include "steps/kv_row.h"

namespace bough::cpu {
namespace {

// First rows of the runs that may be stored side by side, then the number of rows. A page of i4 waits for the one before it, so there
// the rows of a sequence are one run; otherwise every row is one.
std::vector<int64_t> runs_of(const Batch& batch, DType type) {
  std::vector<int64_t> runs;
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    if (type != DType::i4 || row == 0 || batch.row_seq[r] != batch.row_seq[r - 1]) runs.push_back(row);
  }
  runs.push_back(batch.rows());
  return runs;
}

}  // namespace

void kv_write(const KvWriteArgs& a) {
  const KvShape& s = a.shape;
  const std::vector<int64_t> runs = runs_of(*a.batch, s.type);
  const int64_t planes = int64_t{2} * s.kv_heads;
#pragma omp parallel for schedule(static) if (runs.size() > 2)
  for (int64_t item = 0; item < static_cast<int64_t>(runs.size() - 1) * planes; ++item) {
    const auto run = static_cast<size_t>(item / planes);
    const int head = static_cast<int>(item % planes / 2);
    const bool keys = item % 2 == 0;
    const size_t plane = keys ? s.k_offset(a.layer, head) : s.v_offset(a.layer, head);
    PageTable pages = a.batch->sequences[static_cast<size_t>(a.batch->row_seq[static_cast<size_t>(runs[run])])];
    for (int64_t row = runs[run]; row < runs[run + 1]; ++row) {
      const float* x = (keys ? a.k : a.v) + (row * s.kv_heads + head) * s.head_dim;
      store_token(s, pages, plane, a.batch->positions[static_cast<size_t>(row)], x);
    }
  }
}

}  // namespace bough::cpu
