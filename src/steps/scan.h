// scan: one stage's score of every candidate chunk (InfiniteHiP, arXiv 2502.08910, section 3; here without its rounding of scores).
//
// Per block and KV head, with rows = pooled query rows of the group's heads, each candidate chunk [l, l + chunk) is searched by
// descent, independently of the others: while its length n >= 1, the keys at the quarter points (the centres of its halves) are
// scored by the best of the rows, the better half stays (ties go right), and the chunk's score is the best seen in any round.
// Rows are pooled un-rotated in fp32, scaled, rotated in fp32 and rounded once to the cache's type; scores are fp32.
#pragma once

#include "bough/attention.h"
#include "steps/batch.h"
#include "steps/rope.h"

namespace bough {

// Candidate chunks of every block, ascending. start == nullptr: the first stage's grid, sinks + j * chunk.
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
  int query_stride = 1;
  Pool pool = Pool::mean;
  Scan scan = Scan::relative;
  int64_t scan_window = 0;          // window - first chunk: the distance at which a relative scan compares
  int64_t index_limit = 0;          // chunk-indexed: candidates are divided so that their index + scan_window stays below this
  const RopeTable* rope = nullptr;  // covers scan_window + 2, or index_limit for chunk-indexed
  float* scores = nullptr;          // [nb, hkv, score_capacity] out
  int64_t score_capacity = 0;
};

// By how much candidate indices are divided, and the positions that follow.
struct ChunkIndexing {
  int64_t divisor = 1;
  int64_t query = 0;  // position of the query rows
};
inline ChunkIndexing chunk_indexing(int64_t count, int64_t scan_window, int64_t limit, int64_t r0) {
  const int64_t room = limit - scan_window - 1;
  ChunkIndexing x;
  if (room >= 1 && count > room) x.divisor = (count + room - 1) / room;
  const int64_t farthest = (count + x.divisor - 1) / x.divisor + scan_window;
  x.query = r0 < farthest ? r0 : farthest;
  return x;
}

// Rows that stand for a block after pooling. Groups are floor(position / stride).
inline int pooled_rows(const QueryBlock& block, int stride, Pool pool) {
  if (pool == Pool::all) return block.rows;
  return static_cast<int>((block.r1() - 1) / stride - block.r0 / stride) + 1;
}

// Pools the rows of one query head: q points at the block's first row of that head, row_stride floats between rows.
// out [pooled_rows, d], multiplied by scale.
void pool_rows(const QueryBlock& block, int stride, Pool pool, const float* q, int64_t row_stride, int d, float scale, float* out);

}  // namespace bough
