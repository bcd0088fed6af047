// scan: one stage's score of every candidate chunk (InfiniteHiP, arXiv 2502.08910, section 3; here without its rounding of scores).
//
// Per block and KV head, with rows = pooled query rows of the group's heads, each candidate chunk [l, l + chunk) is searched by
// descent, independently of the others: while its length n >= 1, the keys at the quarter points (the centres of its halves) are
// scored by the best of the rows, the better half stays (ties go right), and the chunk's score is the best seen in any round. A stage may
// have fewer rounds than that.
// Or there is no descent: a chunk's score is the best of its pieces', runs of `piece` keys, each scored by the mean of its keys (in fp32,
// rounded to what a key summary holds, turned as the piece's middle key) from the right side. Pieces of one key score every key.
// Rows are pooled un-rotated in fp32, scaled, rotated in fp32 and rounded once to the cache's type; scores are fp32.
#pragma once

#include "steps/key_summary.h"
#include "steps/rope.h"
#include "steps/scan_positions.h"

namespace bough {

// Candidate chunks of every block, ascending. start == nullptr: the first stage's grid, sinks + j * chunk. A chunk of at most a page lies
// within one page.
struct Candidates {
  const int32_t* start = nullptr;  // [nb, lh, capacity]
  const int32_t* count = nullptr;  // [nb]; all list heads of a block have equally many
  int list_heads = 1;              // lh: 1 or hkv
  int64_t capacity = 0;
  int64_t sinks = 0;
  int chunk = 0;

  int64_t at(int64_t block, int head, int64_t j) const {
    if (start == nullptr) return sinks + j * chunk;
    return start[(block * list_heads + (list_heads == 1 ? 0 : head)) * capacity + j];
  }
};

struct ScanArgs {
  const Batch* batch = nullptr;
  KvShape kv;
  HeadShape heads;
  int layer = 0;
  const float* q = nullptr;         // [t, hq, d] un-rotated, not scaled
  const uint8_t* active = nullptr;  // [nb] blocks to score; others are left alone
  Candidates candidates;
  int rounds = 1;  // at most log2(candidates.chunk) + 1
  int piece = 0;   // n > 0: no descent, see above
  int query_stride = 1;
  Pool pool = Pool::mean;
  Scan scan = Scan::relative;
  int64_t scan_window = 0;                       // window - first chunk: the distance at which a relative scan compares
  int64_t trained_context = 0;                   // positions of the other scans stay below this
  const RopeTable* rope = nullptr;               // covers scan_window + 2, and trained_context where the scan turns keys
  const KeySummary* const* summaries = nullptr;  // [sequences] of the first stage's grid, and of `piece`; entries may be null, or all
  float* scores = nullptr;                       // [nb, hkv, score_capacity] out
  int64_t score_capacity = 0;
};

// Rows that stand for a block after pooling. Groups are floor(position / stride).
inline int pooled_rows(const QueryBlock& block, int stride, Pool pool) {
  if (pool == Pool::all) return block.rows;
  return static_cast<int>((block.r1() - 1) / stride - block.r0 / stride) + 1;
}

// Pools the rows of one query head: q points at the block's first row of that head, row_stride floats between rows.
// out [pooled_rows, d], multiplied by scale.
// A pooled row stands at the first row of its group (mean) or at the only one that it is made of.
void pool_rows(const QueryBlock& block, int stride, Pool pool, const float* q, int64_t row_stride, int d, float scale, float* out);
// Absolute position of pooled row `index`.
int64_t pooled_position(const QueryBlock& block, int stride, Pool pool, int64_t index);

}  // namespace bough
