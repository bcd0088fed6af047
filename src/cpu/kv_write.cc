#include "steps/kv_write.h"

#include <cstring>

#include "cpu/cpu_bodies.h"
#include "steps/convert.h"

namespace bough::cpu {
namespace {

void write_row(const float* x, int d, DType type, std::byte* out) {
  if (type == DType::f32) {
    std::memcpy(out, x, static_cast<size_t>(d) * sizeof(float));
    return;
  }
  auto* halves = reinterpret_cast<uint16_t*>(out);
  for (int i = 0; i < d; ++i) halves[i] = to_bf16(x[i]);
}

}  // namespace

void kv_write(const KvWriteArgs& a) {
  const KvShape& s = a.shape;
  const int64_t width = static_cast<int64_t>(s.kv_heads) * s.head_dim;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < a.batch->rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    PageTable pages = a.batch->sequences[static_cast<size_t>(a.batch->row_seq[r])];
    for (int head = 0; head < s.kv_heads; ++head) {
      const int64_t from = row * width + static_cast<int64_t>(head) * s.head_dim;
      write_row(a.k + from, s.head_dim, s.type, pages.row(a.batch->positions[r], s.k_offset(a.layer, head), s.row_bytes()));
      write_row(a.v + from, s.head_dim, s.type, pages.row(a.batch->positions[r], s.v_offset(a.layer, head), s.row_bytes()));
    }
  }
}

}  // namespace bough::cpu
