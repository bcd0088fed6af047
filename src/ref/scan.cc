#include "steps/scan.h"

#include <algorithm>
#include <limits>

#include "ref/ref_bodies.h"
#include "ref/search.h"

namespace bough::ref {
namespace {

// The chunk that begins at l, candidate `index`.
float descend(const Search& s, const ScanPositions& positions, int chunk, int rounds, int64_t l, int64_t index, const Rows& left,
              const Rows& right) {
  const auto position = [&](int64_t token) { return positions.turns_keys() ? positions.key(token, index) : -1; };
  int64_t r = l + chunk;
  float score = -std::numeric_limits<float>::infinity();
  for (int round = 0; round < rounds; ++round) {
    const int64_t c = (l + r) / 2;
    const int64_t a = (l + c) / 2;
    const int64_t z = (c + r) / 2;
    const float sa = best_score(s, a, position(a), left);
    const float sz = best_score(s, z, position(z), right);
    if (sa > sz) {
      r = c;
    } else {
      l = c;
    }
    score = std::max(score, std::max(sa, sz));
  }
  return score;
}

// The chunk that begins at l, candidate `index`, by the means of its pieces.
float best_piece(const Search& s, const ScanPositions& positions, int chunk, int piece, int64_t l, int64_t index, const Rows& rows) {
  float score = -std::numeric_limits<float>::infinity();
  for (int64_t token = l; token < l + chunk; token += piece) {
    const int64_t position = positions.turns_keys() ? positions.key(token + piece / 2, index) : -1;
    score = std::max(score, best_mean_score(s, token, piece, position, rows));
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
    const ScanPositions positions(a.scan, block, count, a.scan_window, a.trained_context);
    for (int h = 0; h < a.heads.kv_heads; ++h) {
      const Search s{&block, a.kv, a.heads, a.layer, h, pages, a.rope};
      const Rows left = query_rows(s, a.q, a.query_stride, a.pool, positions, positions.two_sided() ? 1 : 0);
      const Rows right = query_rows(s, a.q, a.query_stride, a.pool, positions, 0);
      float* scores = a.scores + (static_cast<int64_t>(b) * a.heads.kv_heads + h) * a.score_capacity;
      for (int64_t j = 0; j < count; ++j) {
        const int64_t l = a.candidates.at(static_cast<int64_t>(b), h, j);
        scores[j] = a.piece > 0 ? best_piece(s, positions, a.candidates.chunk, a.piece, l, j, right)
                                : descend(s, positions, a.candidates.chunk, a.rounds, l, j, left, right);
      }
    }
  }
}

}  // namespace bough::ref
