// A weight as it lies in its file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bough {

// A matrix, or a vector as one row, in the file's own element type. Rows are contiguous and follow one another.
struct Tensor {
  const void* data = nullptr;
  int type = 0;      // ggml_type
  int64_t rows = 0;  // output features
  int64_t cols = 0;  // input features, a multiple of the type's block
  size_t row_bytes = 0;
  std::string_view name;
};

}  // namespace bough
