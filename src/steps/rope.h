// RoPE: the one place where integer positions become angles.
#pragma once

#include <cstdint>
#include <vector>

#include "bough/types.h"

namespace bough {

// Which elements turn together: interleaved (2i, 2i+1), as GGUF stores the llama family, or halves (i, i + d/2).
enum class RopeLayout : uint8_t { interleaved, halves };

struct RopeParams {
  RopeLayout layout = RopeLayout::interleaved;
  int dims = 0;                     // even, at most d: the first elements of a head turn, the others pass through
  std::vector<double> frequencies;  // [dims/2] radians a position, with the model's own scaling applied
  double magnitude = 1;             // by which what turns is multiplied too (YaRN's attention factor)
};

// magnitude * cos and sin of position * frequency, computed in double (fp32 angles are wrong by radians at millions), stored as f32 both by
// position and in tiles of 32 positions with the pair index outside, as packed key tiles read them.
class RopeTable {
 public:
  static constexpr int kTile = 32;

  explicit RopeTable(RopeParams params) : params_(std::move(params)) {}

  const RopeParams& params() const { return params_; }
  int pairs() const { return params_.dims / 2; }
  int64_t positions() const { return positions_; }

  // Covers positions [0, count). Invalidates pointers. Not thread-safe.
  void reserve(int64_t count);

  // REQUIRES: position < positions().
  const float* cos_row(int64_t position) const { return rows_.data() + position * 2 * pairs(); }                  // [pairs]
  const float* sin_row(int64_t position) const { return cos_row(position) + pairs(); }                            // [pairs]
  const float* cos_tile(int64_t tile) const { return tiles_.data() + tile * 2 * pairs() * kTile; }                // [pairs][32]
  const float* sin_tile(int64_t tile) const { return cos_tile(tile) + static_cast<ptrdiff_t>(pairs()) * kTile; }  // [pairs][32]

 private:
  RopeParams params_;
  int64_t positions_ = 0;
  std::vector<float> rows_;
  std::vector<float> tiles_;
};

// y[d] = x[d] turned by the angles of one position. x and y may be the same.
void rope_row(const float* x, const float* cos, const float* sin, const RopeParams& params, int d, float* y);

// The magnitude once more, of what turns: for a query that meets keys which are not turned.
void magnify_row(const RopeParams& params, float* x);

}  // namespace bough
