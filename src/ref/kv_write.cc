#include "ref/ref_bodies.h"
#include "steps/kv_row.h"

namespace bough::ref {

void kv_write(const KvWriteArgs& args) {
  const KvShape& s = args.shape;
  for (int64_t row = 0; row < args.batch->rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    PageTable pages = args.batch->sequences[static_cast<size_t>(args.batch->row_seq[r])];
    for (int head = 0; head < s.kv_heads; ++head) {
      const int64_t from = (row * s.kv_heads + head) * s.head_dim;
      store_token(s, pages, s.k_offset(args.layer, head), args.batch->positions[r], args.k + from);
      store_token(s, pages, s.v_offset(args.layer, head), args.batch->positions[r], args.v + from);
    }
  }
}

}  // namespace bough::ref
