#include "support/weights.h"

#include <ggml.h>

#include <cmath>

namespace bough::test {

RandomMatrix::RandomMatrix(int type, int64_t rows, int64_t cols, uint64_t seed) : type_(type), rows_(rows), cols_(cols) {
  std::vector<float> values = random_rows(rows, cols, seed);
  for (float& value : values) value /= std::sqrt(static_cast<float>(cols));
  const auto kind = static_cast<ggml_type>(type);
  data_.resize(ggml_row_size(kind, cols) * static_cast<size_t>(rows));
  ggml_quantize_chunk(kind, values.data(), data_.data(), 0, rows, cols, nullptr);
}

Tensor RandomMatrix::tensor() const {
  return {data_.data(), type_, rows_, cols_, ggml_row_size(static_cast<ggml_type>(type_), cols_), "random"};
}

std::string type_name(int type) { return ggml_type_name(static_cast<ggml_type>(type)); }

std::vector<float> random_rows(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * cols));
  for (float& value : x) value = normal(random);
  return x;
}

}  // namespace bough::test
