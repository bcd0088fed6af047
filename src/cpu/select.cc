#include "steps/select.h"

#include <algorithm>

#include "cpu/cpu_bodies.h"
#include "cpu/scratch.h"

namespace bough::cpu {
namespace {

struct Chunk {
  float score;
  int32_t start;
};

// Higher score first, then lower start.
bool better(const Chunk& x, const Chunk& y) { return x.score > y.score || (x.score == y.score && x.start < y.start); }

// The fewest candidates below the limit that any list of the block has; lists are ascending.
int64_t fewest(const SelectArgs& a, int64_t block) {
  int64_t n = a.candidates.count[block];
  for (int head = 0; a.limit != nullptr && head < a.candidates.list_heads; ++head) {
    while (n > 0 && a.candidates.at(block, head, n - 1) >= a.limit[block]) --n;
  }
  return n;
}

// Candidates of one list that may be selected, with the best score of the heads that share it. chunks [count].
int64_t gather(const SelectArgs& a, int64_t block, int list_head, Chunk* chunks) {
  const int heads = a.candidates.list_heads == 1 ? a.kv_heads : 1;
  const float* scores = a.scores + (block * a.kv_heads + list_head) * a.score_capacity;
  int64_t n = 0;
  for (int64_t j = 0; j < a.candidates.count[block]; ++j) {
    const int64_t start = a.candidates.at(block, list_head, j);
    if (a.limit != nullptr && start >= a.limit[block]) break;
    float best = 0;
    if (a.scored[block] != 0) {
      best = scores[j];
      for (int h = 1; h < heads; ++h) best = std::max(best, scores[h * a.score_capacity + j]);
    }
    chunks[n++] = {best, static_cast<int32_t>(start)};
  }
  return n;
}

}  // namespace

void select(const SelectArgs& a) {
  const auto blocks = static_cast<int64_t>(a.batch->blocks.size());
  const int list_heads = a.candidates.list_heads;
  int64_t most = 0;
  for (int64_t b = 0; b < blocks; ++b) most = std::max<int64_t>(most, a.candidates.count[b]);
  const Scratch scratch(static_cast<size_t>(most) * sizeof(Chunk));
#pragma omp parallel for schedule(dynamic) if (blocks * list_heads > 1)
  for (int64_t list = 0; list < blocks * list_heads; ++list) {
    const int64_t b = list / list_heads;
    auto* chunks = reinterpret_cast<Chunk*>(scratch.mine());
    const int64_t n = gather(a, b, static_cast<int>(list % list_heads), chunks);
    const int64_t keep = std::min(fewest(a, b), a.keep_of(b));
    if (keep < n) {
      std::nth_element(chunks, chunks + keep, chunks + n, better);
      std::sort(chunks, chunks + keep, [](const Chunk& x, const Chunk& y) { return x.start < y.start; });
    }
    int32_t* out = a.start + list * a.capacity;
    for (int64_t i = 0; i < keep; ++i) out[i] = chunks[i].start;
    if (list % list_heads == 0) a.count[b] = static_cast<int32_t>(keep);
  }
}

}  // namespace bough::cpu
