#include "steps/kv_write.h"

#include <cstring>

#include "cpu/cpu_bodies.h"
#include "steps/kv_row.h"

namespace bough::cpu {

void kv_write(const KvWriteArgs& a) {
  const KvShape& s = a.shape;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < a.batch->rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    PageTable pages = a.batch->sequences[static_cast<size_t>(a.batch->row_seq[r])];
    for (int head = 0; head < s.kv_heads; ++head) {
      const int64_t from = (row * s.kv_heads + head) * s.head_dim;
      store_row(a.k + from, s.type, s.head_dim, pages.row(a.batch->positions[r], s.k_offset(a.layer, head), s.row_bytes()));
      store_row(a.v + from, s.type, s.head_dim, pages.row(a.batch->positions[r], s.v_offset(a.layer, head), s.row_bytes()));
    }
  }
}

}  // namespace bough::cpu
