#include "ref/search.h"

#include <algorithm>
#include <limits>

#include "ref/ref_bodies.h"
#include "steps/kv_row.h"

namespace bough::ref {

Rows query_rows(const Search& s, const float* q, int stride, Pool pool, const ScanPositions& positions, int64_t shift) {
  const int d = s.heads.head_dim;
  const int pooled = pooled_rows(*s.block, stride, pool);
  Rows rows;
  std::vector<float> buffer(static_cast<size_t>(pooled) * static_cast<size_t>(d));
  for (int g = 0; g < s.heads.group(); ++g) {
    const int head = s.kv_head * s.heads.group() + g;
    const float* first = q + (static_cast<int64_t>(s.block->row) * s.heads.heads + head) * d;
    pool_rows(*s.block, stride, pool, first, static_cast<int64_t>(s.heads.heads) * d, d, s.heads.scale, buffer.data());
    for (int r = 0; r < pooled; ++r) {
      float* row = &buffer[static_cast<size_t>(r) * static_cast<size_t>(d)];
      const int64_t position = positions.query(pooled_position(*s.block, stride, pool, r)) + shift;
      rope_row(row, s.rope->cos_row(position), s.rope->sin_row(position), s.rope->params(), d, row);
      if (!positions.turns_keys()) magnify_row(s.rope->params(), row);
      for (int i = 0; i < d; ++i) row[i] = rounded(row[i], s.kv.type);
      rows.emplace_back(row, row + d);
    }
  }
  return rows;
}

namespace {

// Of a key as it is stored or was averaged, of the cache's type.
float best_of(const Search& s, std::vector<float>& key, int64_t position, const Rows& rows) {
  if (position >= 0) {
    rope_row(key.data(), s.rope->cos_row(position), s.rope->sin_row(position), s.rope->params(), s.heads.head_dim, key.data());
    for (float& x : key) x = rounded(x, s.kv.type);
  }
  float best = -std::numeric_limits<float>::infinity();
  for (const auto& row : rows) {
    float sum = 0;
    for (size_t i = 0; i < key.size(); ++i) sum += row[i] * key[i];
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace

float best_score(const Search& s, int64_t token, int64_t position, const Rows& rows) {
  const std::byte* stored = s.pages.row(token, s.kv.k_offset(s.layer, s.kv_head), s.kv.row_bytes());
  std::vector<float> key(static_cast<size_t>(s.heads.head_dim));
  load_row(stored, s.kv.type, s.heads.head_dim, key.data());
  return best_of(s, key, position, rows);
}

float best_mean_score(const Search& s, int64_t token, int piece, int64_t position, const Rows& rows) {
  const DType type = mean_type(s.kv.type);
  std::vector<std::byte> stored(kv_row_bytes(type, s.kv.head_dim));
  key_means({s.kv, s.pages, s.kv.k_offset(s.layer, s.kv_head), token, piece, 1, stored.data(), stored.size()});
  std::vector<float> mean(static_cast<size_t>(s.heads.head_dim));
  load_row(stored.data(), type, s.heads.head_dim, mean.data());
  return best_of(s, mean, position, rows);
}

}  // namespace bough::ref
