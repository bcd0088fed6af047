#include "steps/embed.h"

#include <ggml.h>

#include <algorithm>

#include "cpu/model_bodies.h"

namespace bough::cpu {

void embed(const EmbedArgs& a) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(a.embedding.type))->to_float;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < a.rows; ++t) {
    const auto* row = static_cast<const std::byte*>(a.embedding.data) + static_cast<size_t>(a.ids[t]) * a.embedding.row_bytes;
    float* x = a.x + t * a.embedding.cols;
    if (a.embedding.type == GGML_TYPE_F32) {
      std::copy_n(reinterpret_cast<const float*>(row), a.embedding.cols, x);
    } else {
      to_float(row, x, a.embedding.cols);
    }
    if (a.scale == 1.0F) continue;
    for (int64_t i = 0; i < a.embedding.cols; ++i) x[i] *= a.scale;
  }
}

}  // namespace bough::cpu
