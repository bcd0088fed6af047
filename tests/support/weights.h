// Random weight matrices in the element types of model files, for tests of the model's steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "steps/tensor.h"

namespace bough::test {

// Owns the bytes of a [rows, cols] matrix of a ggml_type, normal with deviation 1 / sqrt(cols) before it was quantised.
class RandomMatrix {
 public:
  RandomMatrix(int type, int64_t rows, int64_t cols, uint64_t seed);

  Tensor tensor() const;

 private:
  int type_;
  int64_t rows_;
  int64_t cols_;
  std::vector<std::byte> data_;
};

std::string type_name(int type);
// Normal, of unit deviation.
std::vector<float> random_rows(int64_t rows, int64_t cols, uint64_t seed);

}  // namespace bough::test
