#include "steps/key_means.h"

#include <vector>

#include "ref/ref_bodies.h"
#include "steps/kv_row.h"

namespace bough::ref {

void key_means(const KeyMeansArgs& a) {
  const int d = a.kv.head_dim;
  std::vector<float> key(static_cast<size_t>(d));
  for (int run = 0; run < a.count; ++run) {
    const int64_t first = a.token + int64_t{run} * a.piece;
    std::vector<float> sum(static_cast<size_t>(d));
    for (int64_t token = first; token < first + a.piece; ++token) {
      load_row(a.pages.row(token, a.plane, a.kv.row_bytes()), a.kv.type, d, key.data());
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += key[i];
    }
    std::byte* out = a.out + static_cast<size_t>(run) * a.stride;
    const float share = 1.0F / static_cast<float>(a.piece);
    for (size_t i = 0; i < sum.size(); ++i) store_element(out, i, mean_type(a.kv.type), sum[i] * share);
  }
}

}  // namespace bough::ref
