#include "ref/ref_bodies.h"
#include "steps/convert.h"

namespace bough::ref {

void kv_write(const KvWriteArgs& args) {
  const KvShape& s = args.shape;
  const auto d = static_cast<size_t>(s.head_dim);
  for (int64_t row = 0; row < args.batch->rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    PageTable pages = args.batch->sequences[static_cast<size_t>(args.batch->row_seq[r])];
    for (int head = 0; head < s.kv_heads; ++head) {
      const size_t from = (r * static_cast<size_t>(s.kv_heads) + static_cast<size_t>(head)) * d;
      std::byte* k = pages.row(args.batch->positions[r], s.k_offset(args.layer, head), s.row_bytes());
      std::byte* v = pages.row(args.batch->positions[r], s.v_offset(args.layer, head), s.row_bytes());
      for (size_t i = 0; i < d; ++i) {
        store_element(k, i, s.type, args.k[from + i]);
        store_element(v, i, s.type, args.v[from + i]);
      }
    }
  }
}

}  // namespace bough::ref
