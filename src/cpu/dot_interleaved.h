// Decode's dot products over quantised weights that are laid out anew: 16 output features side by side, so that one instruction multiplies
// for 8 or 16 of them and a thread reads its share as one stream. As in ggml's dot products a row of x is rounded to 8 bits in blocks of
// 32; products of codes are summed exactly within a block, blocks in f32 in their order. A row's bits depend on nothing but the row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "steps/linear.h"

namespace bough::cpu {

inline constexpr int64_t kInterleaved = 16;  // features of a group; the last is filled up with zeros

// Whether this CPU multiplies weights of this ggml_type so.
bool interleaves(int ggml_type);

// Bytes of all groups of W, a multiple of 64.
size_t interleaved_bytes(const Tensor& w);
// Fills them, in a parallel region of its own.
void interleave(const Tensor& w, std::byte* out);

// Rows of x, rounded.
class RoundedRows {
 public:
  // x [rows][cols]; cols is a multiple of 32. A NaN or an infinity makes its block's products NaN.
  RoundedRows(const float* x, int64_t rows, int64_t cols);

  struct Row {
    const int8_t* codes;
    const float* scales;  // [blocks]
    const int32_t* sums;  // [blocks] of the block's codes
  };
  Row row(int64_t t) const {
    const int64_t blocks = cols_ / 32;
    return {codes_.data() + t * cols_, scales_.data() + t * blocks, sums_.data() + t * blocks};
  }

 private:
  int64_t cols_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

// The products of one row of x with group `group` of W's interleaved weights.
void dot_group(const Tensor& w, const std::byte* interleaved, int64_t group, const RoundedRows::Row& x, float* out);

}  // namespace bough::cpu
