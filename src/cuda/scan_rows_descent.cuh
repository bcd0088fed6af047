// What the kernels of scan_rows share: the rows of keys that they probe, and the descent of a candidate.
#pragma once

#include <algorithm>

#include "cuda/prim/reduce.cuh"
#include "cuda/scan_images.cuh"

namespace bough::cuda {

// The page that was asked for last.
struct HeldPage {
  int number = -1;
  int page = 0;
};

// Keys of one sequence and KV head, in the cache and in its summary.
template <Kv KV>
struct KeyRows {
  const unsigned char* data;
  const float* scale;    // null: 1
  const int32_t* table;  // null: pages in order
  const Cache& cache;
  int seq;
  int head;

  __device__ __forceinline__ KeyRows(const Cache& c, int seq, int head)
      : data(static_cast<const unsigned char*>(c.k.data) +
             (seq * c.k.sequence + static_cast<int64_t>(head) * c.k.strides.head) * kElementBytes<KV>),
        scale(c.k.scale == nullptr ? nullptr : c.k.scale + seq * c.k.scale_sequence + static_cast<int64_t>(head) * c.k.scale_strides.head),
        table(c.table == nullptr ? nullptr : c.table + seq * c.table_stride),
        cache(c),
        seq(seq),
        head(head) {}

  // Element 0 of a token's row, in elements from `data`; `summary`: of its row in the summary, which holds it.
  __device__ __forceinline__ int64_t row(HeldPage& held, int token, bool summary) const {
    const int number = token >> cache.page_shift;
    if (number != held.number) held.page = table == nullptr ? number : __ldg(table + number);
    held.number = number;
    if (summary) {
      return summary_row(cache, seq, held.page, token, head) - seq * cache.k.sequence - static_cast<int64_t>(head) * cache.k.strides.head;
    }
    return static_cast<int64_t>(held.page) * cache.k.strides.page + static_cast<int64_t>(in_page(token)) * cache.k.strides.token;
  }
  // REQUIRES: the token's row was asked for last, as here.
  __device__ __forceinline__ float scale_of(const HeldPage& held, int token, bool summary) const {
    if (KV == Kv::same || scale == nullptr) return 1.0F;
    if (summary) return summary_scale(cache, seq, held.page, token, head);
    const Steps& s = cache.k.scale_strides;
    return __ldg(scale + static_cast<int64_t>(held.page) * s.page + static_cast<int64_t>(in_page(token)) * s.token);
  }
  __device__ __forceinline__ int in_page(int token) const { return token & ((1 << cache.page_shift) - 1); }
};

// Of N values that lanes have, the greatest value number lane / UNIT % N of all lanes that differ from this one in lane / UNIT % (LIMIT /
// UNIT).
template <int N, int UNIT, int LIMIT>
__device__ __forceinline__ float greatest(float (&v)[N]) {
  static_assert(N * UNIT <= LIMIT);
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2) {
    const bool high = (threadIdx.x & (half * UNIT)) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float other = __shfl_xor_sync(~0u, high ? v[i] : v[i + half], half * UNIT);
      v[i] = fmaxf(high ? v[i + half] : v[i], other);
    }
  }
#pragma unroll
  for (int apart = N * UNIT; apart < LIMIT; apart *= 2) v[0] = fmaxf(v[0], __shfl_xor_sync(~0u, v[0], apart));
  return v[0];
}

// The best products of a key with the rows of each side's images; where a scan has one side they are the same.
struct Best {
  float of[2] = {};

  __device__ __forceinline__ void put(int side, int sides, float best) {
    if (side == 0) of[0] = best;
    if (side == 1 || sides == 1) of[1] = best;
  }
};

// What a round scores of each candidate: the key `left` tokens after its first for sides [0, left_end), and unless it is `single` the key
// `right` tokens after it for sides [right_begin, sides); `summary`: keys from there.
struct Round {
  int left;
  int right;
  int left_end;
  int right_begin;
  bool single;
  bool summary;
};

// The score of this lane's candidate, which begins at l: `chunk` tokens, a power of two, after `rounds` rounds. `scorer` has `sides`,
// `keys` and score(l, round, of left, of right), which all lanes of a warp call. Each round scores the keys at the quarter points. Those of
// two tokens are the tokens themselves, of which the second is the better key of the round of four; that of one token is the better of the
// two. So the last rounds read one new key, and every key that they may compare is scored for both sides when it is there.
template <typename Scorer>
__device__ __forceinline__ float descend(int chunk, int rounds, int l, Scorer& scorer) {
  float score = -INFINITY, second[2] = {-INFINITY, -INFINITY};
#pragma unroll 1
  for (int n = chunk; n > 0; n = n > 4 ? n / 2 : n > 1 ? 1 : 0) {
    const bool both = n <= 4;
    Best x, y;
    scorer.score(
        l,
        {n == 2 ? 1 : n / 4, 3 * n / 4, both ? scorer.sides : 1, both ? 0 : scorer.sides - 1, n == 1, n >= scorer.keys.cache.summary_span},
        x, y);
    if (n == 1) {
      score = fmaxf(score, fmaxf(x.of[0], second[1]));
      if (rounds == 1 && chunk > 1) return score;
      return fmaxf(score, x.of[0] > second[1] ? x.of[1] : second[0]);
    }
    const bool left = x.of[0] > y.of[1];
    second[0] = left ? x.of[0] : y.of[0];
    second[1] = left ? x.of[1] : y.of[1];
    if (n == 2) continue;
    score = fmaxf(score, fmaxf(x.of[0], y.of[1]));
    if (!left) l += n / 2;
    if (--rounds == 0) break;
  }
  return score;
}

// The same without a descent: the best of `pieces` rows of the cache from `row` on. The scorer has one side.
template <typename Scorer>
__device__ __forceinline__ float best_piece(int pieces, int row, Scorer& scorer) {
  float score = -INFINITY;
#pragma unroll 1
  for (int i = 0; i < pieces; i += 2) {
    Best x, y;
    scorer.score(row, {i, min(i + 1, pieces - 1), 1, 0, false, false}, x, y);
    score = fmaxf(score, fmaxf(x.of[0], y.of[0]));
  }
  return score;
}

// The score of this lane's candidate of a stage, which begins at token l.
template <typename Scorer>
__device__ __forceinline__ float score_of(const Stages& s, int stage, int l, Scorer& scorer) {
  if (s.piece[stage] == 0) return descend(s.chunk[stage], s.rounds[stage], l, scorer);
  return best_piece(s.chunk[stage] >> s.piece_shift[stage], l >> s.piece_shift[stage], scorer);
}

// How often a descent multiplies keys by the images of one side.
__device__ __forceinline__ int descent_products(int chunk, int rounds, int sides) {
  int n = 0;
  for (; chunk > 4 && rounds > 0; chunk /= 2, --rounds) n += 2;
  if (rounds == 0) return n;
  if (chunk == 4) --rounds;
  return n + (chunk > 1 ? 2 * sides : 0) + (rounds > 0 ? sides : 0);
}

// How often score_of does.
__device__ __forceinline__ int products_of(const Stages& s, int stage, int sides) {
  if (s.piece[stage] == 0) return descent_products(s.chunk[stage], s.rounds[stage], sides);
  return ((s.chunk[stage] >> s.piece_shift[stage]) + 1) / 2 * 2;
}

// The list of a block that a KV head scores for, in scratch of [nb, lh].
__device__ __forceinline__ int64_t list_of(const Problem& p, int block, int head) {
  return static_cast<int64_t>(block) * p.list_heads + (p.list_heads == 1 ? 0 : head);
}

__device__ __forceinline__ void put_score(const Problem& p, int block, int head, int j, float score) {
  uint32_t* scores = p.scores + list_of(p, block, head) * p.score_capacity + j;
  if (p.list_heads == 1) {
    atomicMax(scores, ordered(score));
  } else {
    *scores = ordered(score);
  }
}

// Parts that the candidates of one block and head are cut in, for blocks of threads that take `run` candidates at a time: about
// `rounds` runs each, fewer where the device would not be full.
inline int scan_ranges(int candidates, int run, int columns, int rounds) {
  constexpr int kEnough = 512;  // blocks of threads
  const int runs = candidates > run ? (candidates + run - 1) / run : 1;
  const int wanted = std::max((runs + rounds - 1) / rounds, (kEnough + columns - 1) / columns);
  const int each = std::max(1, runs / wanted);
  return (runs + each - 1) / each;
}

}  // namespace bough::cuda
