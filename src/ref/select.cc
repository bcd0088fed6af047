#include "steps/select.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "ref/ref_bodies.h"

namespace bough::ref {
namespace {

// The fewest candidates below the limit that any list of the block has.
int64_t fewest(const SelectArgs& a, int64_t block) {
  int64_t least = a.candidates.count[block];
  for (int head = 0; head < a.candidates.list_heads; ++head) {
    int64_t n = 0;
    for (int64_t j = 0; j < a.candidates.count[block]; ++j)
      n += a.limit == nullptr || a.candidates.at(block, head, j) < a.limit[block] ? 1 : 0;
    least = std::min(least, n);
  }
  return least;
}

}  // namespace

void select(const SelectArgs& a) {
  const int list_heads = a.candidates.list_heads;
  for (size_t block = 0; block < a.batch->blocks.size(); ++block) {
    const auto b = static_cast<int64_t>(block);
    const int64_t count = std::min(a.keep_of(b), fewest(a, b));
    for (int lh = 0; lh < list_heads; ++lh) {
      struct Chunk {
        int64_t start;
        float score;
      };
      std::vector<Chunk> chunks;
      for (int64_t j = 0; j < a.candidates.count[b]; ++j) {
        const int64_t start = a.candidates.at(b, lh, j);
        if (a.limit != nullptr && start >= a.limit[b]) continue;
        float score = -std::numeric_limits<float>::infinity();
        for (int h = 0; h < a.kv_heads && a.scored[b] != 0; ++h) {
          if (list_heads > 1 && h != lh) continue;
          score = std::max(score, a.scores[(b * a.kv_heads + h) * a.score_capacity + j]);
        }
        chunks.push_back({start, score});
      }
      const auto keep = static_cast<size_t>(count);
      std::stable_sort(chunks.begin(), chunks.end(), [](const Chunk& x, const Chunk& y) { return x.score > y.score; });
      chunks.resize(keep);
      std::sort(chunks.begin(), chunks.end(), [](const Chunk& x, const Chunk& y) { return x.start < y.start; });
      for (size_t i = 0; i < keep; ++i)
        a.start[(b * list_heads + lh) * a.capacity + static_cast<int64_t>(i)] = static_cast<int32_t>(chunks[i].start);
    }
    a.count[b] = static_cast<int32_t>(count);
  }
}

}  // namespace bough::ref
