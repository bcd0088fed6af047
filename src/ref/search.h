// What scan and tree share: pooled query rows and the best of their products with a key.
#pragma once

#include <vector>

#include "steps/scan.h"

namespace bough::ref {

// The query rows of one KV head's group and the keys that they meet.
struct Search {
  const QueryBlock* block = nullptr;
  KvShape kv;
  HeadShape heads;
  int layer = 0;
  int kv_head = 0;
  PageTable pages;
  const RopeTable* rope = nullptr;
};

using Rows = std::vector<std::vector<float>>;

// Pooled, scaled, rotated at positions.query(own position) + shift and rounded. q [t, hq, d].
Rows query_rows(const Search& s, const float* q, int stride, Pool pool, const ScanPositions& positions, int64_t shift);

// The best of the rows against one key, which is rotated at `position` unless that is negative.
float best_score(const Search& s, int64_t token, int64_t position, const Rows& rows);
// The same of the mean of keys [token, token + piece).
float best_mean_score(const Search& s, int64_t token, int piece, int64_t position, const Rows& rows);

}  // namespace bough::ref
