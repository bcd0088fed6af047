#include "steps/scan.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "ref/ref_bodies.h"
#include "steps/convert.h"

namespace bough::ref {
namespace {

using Rows = std::vector<std::vector<float>>;

// The group's pooled rows, rotated at `position` and rounded.
Rows query_rows(const ScanArgs& a, const QueryBlock& block, int kv_head, int64_t position) {
  const int d = a.heads.head_dim;
  const int pooled = pooled_rows(block, a.query_stride, a.pool);
  Rows rows;
  std::vector<float> buffer(static_cast<size_t>(pooled) * static_cast<size_t>(d));
  for (int g = 0; g < a.heads.group(); ++g) {
    const int head = kv_head * a.heads.group() + g;
    const float* q = a.q + (static_cast<int64_t>(block.row) * a.heads.heads + head) * d;
    pool_rows(block, a.query_stride, a.pool, q, static_cast<int64_t>(a.heads.heads) * d, d, a.heads.scale, buffer.data());
    for (int r = 0; r < pooled; ++r) {
      float* row = &buffer[static_cast<size_t>(r) * static_cast<size_t>(d)];
      rope_row(row, a.rope->cos_row(position), a.rope->sin_row(position), a.rope->params().layout, d, row);
      for (int i = 0; i < d; ++i) row[i] = rounded(row[i], a.kv.type);
      rows.emplace_back(row, row + d);
    }
  }
  return rows;
}

// The best of the rows against one key, which is rotated at `position` unless that is negative.
float best_score(const ScanArgs& a, const PageTable& pages, int kv_head, int64_t token, int64_t position, const Rows& rows) {
  const int d = a.heads.head_dim;
  const std::byte* stored = pages.row(token, a.kv.k_offset(a.layer, kv_head), a.kv.row_bytes());
  std::vector<float> key(static_cast<size_t>(d));
  for (int i = 0; i < d; ++i) key[static_cast<size_t>(i)] = load_element(stored, static_cast<size_t>(i), a.kv.type);
  if (position >= 0) {
    rope_row(key.data(), a.rope->cos_row(position), a.rope->sin_row(position), a.rope->params().layout, d, key.data());
    for (float& x : key) x = rounded(x, a.kv.type);
  }
  float best = -std::numeric_limits<float>::infinity();
  for (const auto& row : rows) {
    float sum = 0;
    for (size_t i = 0; i < key.size(); ++i) sum += row[i] * key[i];
    best = std::max(best, sum);
  }
  return best;
}

float descend(const ScanArgs& a, const PageTable& pages, int kv_head, int64_t l, int64_t position, const Rows& left, const Rows& right) {
  int64_t r = l + a.candidates.chunk;
  float score = -std::numeric_limits<float>::infinity();
  for (int n = a.candidates.chunk; n >= 1; n /= 2) {
    const int64_t c = (l + r) / 2;
    const float sa = best_score(a, pages, kv_head, (l + c) / 2, position, left);
    const float sz = best_score(a, pages, kv_head, (c + r) / 2, position, right);
    if (sa > sz) {
      r = c;
    } else {
      l = c;
    }
    score = std::max(score, std::max(sa, sz));
  }
  return score;
}

}  // namespace

void scan(const ScanArgs& a) {
  for (size_t b = 0; b < a.batch->blocks.size(); ++b) {
    if (a.active[b] == 0) continue;
    const QueryBlock& block = a.batch->blocks[b];
    const PageTable& pages = a.batch->sequences[static_cast<size_t>(block.seq)];
    const int64_t count = a.candidates.count[b];
    const bool indexed = a.scan == Scan::chunk_indexed;
    const ChunkIndexing index = chunk_indexing(count, a.scan_window, a.index_limit, block.r0);
    for (int h = 0; h < a.heads.kv_heads; ++h) {
      const Rows left = query_rows(a, block, h, indexed ? index.query : a.scan_window + 1);
      const Rows right = query_rows(a, block, h, indexed ? index.query : a.scan_window);
      float* scores = a.scores + (static_cast<int64_t>(b) * a.heads.kv_heads + h) * a.score_capacity;
      for (int64_t j = 0; j < count; ++j) {
        const int64_t position = indexed ? j / index.divisor : -1;
        scores[j] = descend(a, pages, h, a.candidates.at(static_cast<int64_t>(b), h, j), position, left, right);
      }
    }
  }
}

}  // namespace bough::ref
