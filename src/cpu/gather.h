// Key and value addresses of 32 consecutive ranks of a context, as packed tiles want them.
#pragma once

#include <algorithm>

#include "cpu/tile.h"
#include "steps/block_list.h"
#include "steps/positions.h"

namespace bough::cpu {

inline constexpr int kMaxPairs = 128;  // of a head of 256 elements

struct TileRows {
  const std::byte* k[kTileKeys];
  const std::byte* v[kTileKeys];
};

// Ranks [rank, rank + 32) of the context; null beyond its end.
inline void gather_rows(const Context& context, const PageTable& pages, const KvShape& kv, int layer, int head, int64_t rank,
                        TileRows& rows) {
  const size_t k_plane = kv.k_offset(layer, head);
  const size_t v_plane = kv.v_offset(layer, head);
  const int64_t size = context.size();
  for (int i = 0; i < kTileKeys; ++i) {
    if (rank + i >= size) {
      rows.k[i] = rows.v[i] = nullptr;
      continue;
    }
    const int64_t token = context.token(rank + i);
    rows.k[i] = pages.row(token, k_plane, kv.row_bytes());
    rows.v[i] = pages.row(token, v_plane, kv.row_bytes());
  }
}

// The empty statement keeps it: to GCC a function that does nothing but prefetch is one without effect, and calls of it go.
inline void prefetch_row(const std::byte* row, size_t row_bytes) {
  asm volatile("");
  for (size_t byte = 0; byte < row_bytes; byte += 64) __builtin_prefetch(row + byte);
  if (row_bytes % 64 != 0) __builtin_prefetch(row + row_bytes - 1);  // such rows begin anywhere in a cache line
}

// The row of `token` and, in i4, the mean that it is relative to.
inline void prefetch_token(const PageTable& pages, const KvShape& kv, size_t plane, int64_t token) {
  prefetch_row(pages.row(token, plane, kv.row_bytes()), kv.row_bytes());
  const size_t mean = kv_mean_bytes(kv.type, kv.head_dim);
  if (mean > 0) prefetch_row(pages.row(token - token % kPageTokens, plane, kv.row_bytes()) - mean, mean);
}

// cos then sin [pairs][32] of ranks [rank, rank + 32) of a context of `size` keys; of what is beyond its end, its last key's.
inline void gather_key_angles(const ContextPositions& positions, const RopeTable& rope, int64_t rank, int64_t size, float* angles) {
  const int pairs = rope.pairs();
  float cos[kMaxPairs];
  float sin[kMaxPairs];
  for (int lane = 0; lane < kTileKeys; ++lane) {
    positions.angles(rope, std::min(rank + lane, size - 1), cos, sin);
    for (int i = 0; i < pairs; ++i) {
      angles[i * kTileKeys + lane] = cos[i];
      angles[(pairs + i) * kTileKeys + lane] = sin[i];
    }
  }
}

inline void prefetch_rows(const TileRows& rows, size_t row_bytes) {
  for (int i = 0; i < kTileKeys && rows.k[i] != nullptr; ++i) {
    prefetch_row(rows.k[i], row_bytes);
    prefetch_row(rows.v[i], row_bytes);
  }
}

}  // namespace bough::cpu
