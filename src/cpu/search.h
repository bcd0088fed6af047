// What scan and tree share: packed query rows of a KV head's group, and the angles of 32 keys.
#pragma once

#include <algorithm>

#include "cpu/tile.h"
#include "steps/scan.h"

namespace bough::cpu {

struct SearchRows {
  const QueryBlock* block = nullptr;
  HeadShape heads;
  int kv_head = 0;
  int stride = 1;
  Pool pool = Pool::mean;
  const RopeTable* rope = nullptr;
  DType type = DType::f32;

  int pooled() const { return pooled_rows(*block, stride, pool); }
  int count() const { return pooled() * heads.group(); }

  // q [t, hq, d] -> out [count, d]: scaled, not rotated.
  void pool_into(const float* q, float* out) const {
    const int d = heads.head_dim;
    for (int g = 0; g < heads.group(); ++g) {
      const int head = kv_head * heads.group() + g;
      pool_rows(*block, stride, pool, q + (static_cast<int64_t>(block->row) * heads.heads + head) * d, int64_t{heads.heads} * d, d,
                heads.scale, out + static_cast<int64_t>(g) * pooled() * d);
    }
  }

  // Rotates row r of `rows` at positions.query(its own position) + shift; turned [d] may be where it lies.
  void turn(const float* rows, int r, const ScanPositions& positions, int64_t shift, float* turned) const {
    const int d = heads.head_dim;
    const int64_t position = positions.query(pooled_position(*block, stride, pool, r % pooled())) + shift;
    rope_row(rows + static_cast<int64_t>(r) * d, rope->cos_row(position), rope->sin_row(position), rope->params(), d, turned);
    if (!positions.turns_keys()) magnify_row(rope->params(), turned);
  }

  // Rotates all rows and packs them. turned [d] is working space.
  void pack(const TileOps& ops, const float* rows, const ScanPositions& positions, int64_t shift, float* turned, std::byte* out) const {
    const int d = heads.head_dim;
    for (int r = 0; r < count(); ++r) {
      turn(rows, r, positions, shift, turned);
      ops.pack_rows(turned, d, type, out + static_cast<size_t>(r) * static_cast<size_t>(d) * ops.elem);
    }
  }
};

// cos then sin [d/2][32] of up to 32 positions, one a lane; other lanes are left alone.
inline void gather_angles(const RopeTable& rope, const int64_t* positions, int lanes, float* angles) {
  const int pairs = rope.pairs();
  for (int lane = 0; lane < lanes; ++lane) {
    const float* cos = rope.cos_row(positions[lane]);
    const float* sin = rope.sin_row(positions[lane]);
    for (int i = 0; i < pairs; ++i) {
      angles[i * kTileKeys + lane] = cos[i];
      angles[(pairs + i) * kTileKeys + lane] = sin[i];
    }
  }
}

}  // namespace bough::cpu
