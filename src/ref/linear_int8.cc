// The scalar product in 8 bits.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ref/model_bodies.h"

namespace bough::ref {
namespace {

struct Row {
  std::vector<int32_t> codes;  // [k]
  std::vector<float> scales;   // [groups]
};

void turn(float* x, int64_t size) {
  for (int64_t h = 1; h < size; h *= 2) {
    for (int64_t i = 0; i < size; ++i) {
      if ((i & h) != 0) continue;
      const float a = x[i], b = x[i + h];
      x[i] = a + b;
      x[i + h] = a - b;
    }
  }
  for (int64_t i = 0; i < size; ++i) x[i] *= int8_turn_factor(size);
}

Row quantised(std::vector<float> x) {
  const auto k = static_cast<int64_t>(x.size());
  Row row;
  for (int64_t begin = 0; begin < k; begin += kInt8Group) {
    const int64_t end = std::min(k, begin + kInt8Group);
    turn(x.data() + begin, end - begin);
    float top = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float size = std::abs(x[static_cast<size_t>(i)]);
      if (std::isnan(size) || size > top) top = size;
    }
    const float inverse = top >= kInt8Least ? kInt8Top / top : 0.0F;
    for (int64_t i = begin; i < end; ++i) {
      row.codes.push_back(inverse == 0.0F ? 0 : static_cast<int32_t>(std::nearbyint(x[static_cast<size_t>(i)] * inverse)));
    }
    row.scales.push_back(top / kInt8Top);
  }
  return row;
}

}  // namespace

void linear_int8(const LinearArgs& a) {
  const int64_t k = a.w.cols;
  std::vector<Row> rows;
  for (int64_t t = 0; t < a.rows; ++t) rows.push_back(quantised({a.x + t * k, a.x + (t + 1) * k}));
  std::vector<float> floats(static_cast<size_t>(k));
  for (int64_t n = 0; n < a.w.rows; ++n) {
    const auto id = static_cast<TokenId>(n);
    embed({&id, 1, a.w, floats.data()});
    const Row w = quantised(floats);
    for (int64_t t = 0; t < a.rows; ++t) {
      const Row& x = rows[static_cast<size_t>(t)];
      float y = 0;
      for (size_t g = 0; g < w.scales.size(); ++g) {
        int64_t sum = 0;
        const size_t begin = g * kInt8Group, end = std::min(w.codes.size(), begin + kInt8Group);
        for (size_t i = begin; i < end; ++i) sum += x.codes[i] * w.codes[i];
        y += static_cast<float>(sum) * w.scales[g] * x.scales[g];
      }
      if (a.bias != nullptr) y += a.bias[n];
      float& out = a.y[t * a.w.rows + n];
      out = a.add ? out + y : y;
    }
  }
}

}  // namespace bough::ref
