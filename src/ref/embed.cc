#include <ggml.h>

#include "ref/model_bodies.h"

namespace bough::ref {

void embed(const EmbedArgs& a) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(a.embedding.type))->to_float;
  for (int64_t t = 0; t < a.rows; ++t) {
    const auto* row = static_cast<const std::byte*>(a.embedding.data) + static_cast<size_t>(a.ids[t]) * a.embedding.row_bytes;
    float* x = a.x + t * a.embedding.cols;
    if (a.embedding.type == GGML_TYPE_F32) {
      const auto* floats = reinterpret_cast<const float*>(row);
      for (int64_t i = 0; i < a.embedding.cols; ++i) x[i] = floats[i];
    } else {
      to_float(row, x, a.embedding.cols);
    }
    for (int64_t i = 0; i < a.embedding.cols; ++i) x[i] *= a.scale;
  }
}

}  // namespace bough::ref
