// What both kernels of attend are made of: where a context's keys are, turning them, and the softmax of a warp's scores.
#pragma once

#include "cuda/attend_ptx.cuh"
#include "cuda/view.cuh"

namespace bough::cuda {

inline constexpr float kLog2e = 1.4426950408889634F;
inline constexpr float kInfinity = __builtin_huge_valf();

// What a query block attends to.
struct AttendBlock {
  BlockInfo info;
  ContextView context;
  int size;  // of the context
  int kv_head;

  // Rank of a row's own key.
  __device__ __forceinline__ int own(int row) const { return size - info.rows + row; }
  template <bool MOVES = false>
  __device__ __forceinline__ int query_position(const Problem& p, int row) const {
    return position_of_row<MOVES>(p, context, info.r0, row, own(row));
  }
  // Keys that follow each other in rank stand at positions that do so too.
  __device__ __forceinline__ bool runs_on(const Problem& p) const {
    return p.positions == Positions::rank || (context.selected == 0 && (context.sinks == 0 || context.sinks == context.w0));
  }
};

__device__ __forceinline__ AttendBlock attend_block(const Problem& p, int block, int kv_head) {
  const BlockInfo info = block_at(p, block);
  const ContextView context = context_view(p, info, owner_of(p, block), kv_head);
  return {info, context, context.size(), kv_head};
}

// One key of each tile, `keys` ranks apart. What it takes to find a key (a list of chunks, then the page table) is loaded tiles ahead.
// Ranks from the context's size on stand for the last one. REQUIRES: the context is not empty.
struct KeyFinder {
  const Problem& p;
  const AttendBlock& block;
  int keys;
  int rank;  // of this tile's key
  int token;
  int page;
  int later;  // token of the next tile's

  __device__ __forceinline__ KeyFinder(const Problem& problem, const AttendBlock& b, int first, int keys_a_tile)
      : p(problem), block(b), keys(keys_a_tile), rank(min(first, b.size - 1)) {
    token = block.context.token(rank);
    page = page_of(p.cache, block.info.seq, token);
    later = block.context.token(min(rank + keys, block.size - 1));
  }
  __device__ __forceinline__ void advance() {
    rank = min(rank + keys, block.size - 1);
    token = later;
    page = page_of(p.cache, block.info.seq, token);
    later = block.context.token(min(rank + keys, block.size - 1));
  }
  // Element 0 of the key's row in a plane.
  __device__ __forceinline__ int64_t row(const Plane& plane) const {
    return row_of(plane, p.cache.page_shift, block.info.seq, page, token, block.kv_head);
  }
  __device__ __forceinline__ float scale(const Plane& plane) const {
    return scale_of(p.cache, plane, block.info.seq, token, block.kv_head);
  }
  template <bool MOVES = false>
  __device__ __forceinline__ KeyPosition<MOVES> position() const {
    return position_of_key<MOVES>(p, block.context, block.info.r0, rank, token);
  }
};

// A row's elements are turned sixteen at a time, eight pairs. Elements [x, x + 8) and [y, y + 8) are item `item` of D / 16.
struct Sixteen {
  int x;
  int y;
};
__device__ __forceinline__ bool turns(const Angles& a, int item) { return item * 8 < a.pairs; }
__device__ __forceinline__ Sixteen sixteen_of(const Angles& a, int item) {
  if (a.layout == RopeLayout::halves && turns(a, item)) return {item * 8, item * 8 + a.pairs};
  return {item * 16, item * 16 + 8};
}

// (cos, sin) of an item's pairs; those that do not turn: (1, 0).
struct Turn {
  float4 pairs[4];

  __device__ __forceinline__ void load(const Angles& a, int position, int item) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = item * 8 + i * 2;
      pairs[i] = pair < a.pairs ? angles(a, position, pair) : float4{1, 0, 1, 0};
    }
  }
  __device__ __forceinline__ void load(const Angles& a, KeyPosition<false> key, int item) { load(a, key.at, item); }
  __device__ __forceinline__ void load(const Angles& a, KeyPosition<true> key, int item) {
    load(a, key.at, item);
    if (key.squeezed == key.at) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = item * 8 + i * 2;
      if (pair < a.pairs) pairs[i] = blended(pairs[i], angles(a, key.squeezed, pair));
    }
  }
  // On by another turn, whose magnitude is 1.
  __device__ __forceinline__ void advance(const Turn& by) {
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = turned_on(pairs[i], by.pairs[i]);
  }
  // By a distance of positions below 64, without the magnitude.
  __device__ __forceinline__ void load_distance(const Angles& a, int distance, int item) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = item * 8 + i * 2;
      pairs[i] = pair < a.pairs ? low_angles(a, distance, pair) : float4{1, 0, 1, 0};
    }
  }
};

// x and y scaled by s and turned.
template <typename T>
__device__ __forceinline__ void turn_sixteen(RopeLayout layout, const Turn& turn, float s, uint4& x, uint4& y) {
  uint32_t a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
  if (layout == RopeLayout::halves) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 c = turn.pairs[i];
      float2 u = unpack<T>(a[i]), w = unpack<T>(b[i]);
      u = {u.x * s, u.y * s};
      w = {w.x * s, w.y * s};
      a[i] = pack<T>(u.x * c.x - w.x * c.y, u.y * c.z - w.y * c.w);
      b[i] = pack<T>(w.x * c.x + u.x * c.y, w.y * c.z + u.y * c.w);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 c = turn.pairs[i / 2], d = turn.pairs[2 + i / 2];
      const float2 ca = i % 2 == 0 ? float2{c.x, c.y} : float2{c.z, c.w}, cb = i % 2 == 0 ? float2{d.x, d.y} : float2{d.z, d.w};
      float2 u = unpack<T>(a[i]), w = unpack<T>(b[i]);
      u = {u.x * s, u.y * s};
      w = {w.x * s, w.y * s};
      a[i] = pack<T>(u.x * ca.x - u.y * ca.y, u.y * ca.x + u.x * ca.y);
      b[i] = pack<T>(w.x * cb.x - w.y * cb.y, w.y * cb.x + w.x * cb.y);
    }
  }
  x = {a[0], a[1], a[2], a[3]};
  y = {b[0], b[1], b[2], b[3]};
}

template <typename T>
__device__ __forceinline__ uint4 scale_eight(uint4 x, float s) {
  const uint32_t a[4] = {x.x, x.y, x.z, x.w};
  uint32_t out[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = unpack<T>(a[i]);
    out[i] = pack<T>(u.x * s, u.y * s);
  }
  return {out[0], out[1], out[2], out[3]};
}

// An item scaled and, if it does, turned.
template <typename T>
__device__ __forceinline__ void finish_sixteen(const Angles& a, int item, const Turn& turn, float s, uint4& x, uint4& y) {
  if (turns(a, item)) {
    turn_sixteen<T>(a.layout, turn, s, x, y);
  } else {
    x = scale_eight<T>(x, s);
    y = scale_eight<T>(y, s);
  }
}

// An item of a row of q, as it comes.
template <typename T>
__device__ __forceinline__ void load_query(const Problem& p, const AttendBlock& block, int row, int head, Sixteen at, uint4& x, uint4& y) {
  const T* q = static_cast<const T*>(p.q) + (block.info.row + row) * p.q_row + head * p.q_head;
  x = *reinterpret_cast<const uint4*>(q + at.x);
  y = *reinterpret_cast<const uint4*>(q + at.y);
}

// Scores of 16 rows as matrix products leave them: thread `lane` holds of rows lane / 4 (e = 0) and lane / 4 + 8 (e = 1) the columns
// lane % 4 * 2 + {0, 1} of every eight; number i is of e = i % 4 / 2 and column i / 4 * 8 + lane % 4 * 2 + i % 2. Results likewise.

template <int N>
__device__ __forceinline__ void cap_scores(float (&s)[N], float cap) {
  const float slope = 2 * kLog2e / cap;
#pragma unroll
  for (int i = 0; i < N; ++i) s[i] = cap - __fdividef(2 * cap, exp2_fast(s[i] * slope) + 1);
}

// Hides the keys that a row does not see. `rank` is of column 0, own[e] of the rows' own keys.
template <int N>
__device__ __forceinline__ void hide_scores(float (&s)[N], int rank, const int (&own)[2], int sliding) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int last = own[e] - rank - static_cast<int>(threadIdx.x) % 4 * 2, before = sliding > 0 ? last - sliding : -1;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int column = i / 4 * 8 + i % 2;
      if (i % 4 / 2 == e && (column > last || column <= before)) s[i] = -kInfinity;
    }
  }
}

// The softmax of two rows so far, in powers of two: sums of 2^(score * log2(e) - base), to which results are relative too. The base lies at
// most a little below the greatest score.
struct SoftRows {
  float base[2] = {-kInfinity, -kInfinity};
  float sum[2] = {0, 0};  // this thread's columns
};

// Weights of the scores s as the left side of a product with T; takes `out`, the results so far, to the new base.
template <typename T, int N, int M>
__device__ __forceinline__ void weigh_scores(const float (&s)[N], SoftRows& rows, float (&out)[M], uint32_t (&weights)[N / 8][4]) {
  constexpr float slack = 8;  // a base this far below the greatest score is still good
  float alpha[2] = {1, 1}, base[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float top = s[e * 2];
#pragma unroll
    for (int i = 0; i < N; i += 4) top = fmaxf(top, fmaxf(s[i + e * 2], s[i + e * 2 + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0U, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0U, top, 2)) * kLog2e;
    if (top > rows.base[e] + slack) {
      alpha[e] = exp2_fast(rows.base[e] - top);
      rows.base[e] = top;
    }
    base[e] = rows.base[e] == -kInfinity ? 0 : rows.base[e];
  }
  if (__any_sync(~0U, alpha[0] != 1 || alpha[1] != 1)) {
#pragma unroll
    for (int i = 0; i < M; ++i) out[i] *= alpha[i % 4 / 2];
  }
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float x = exp2_fast(s[i + e * 2] * kLog2e - base[e]), y = exp2_fast(s[i + e * 2 + 1] * kLog2e - base[e]);
      sum += x + y;
      weights[i / 8][i / 4 % 2 * 2 + e] = pack<T>(x, y);
    }
    rows.sum[e] = rows.sum[e] * alpha[e] + sum;
  }
}

// What a row's results are multiplied by in the end, and its lse.
struct RowEnd {
  float factor;
  float lse;
};
// All lanes of a warp call this. sink: logit that takes part and has no value, or -infinity.
__device__ __forceinline__ RowEnd end_row(const SoftRows& rows, int e, float sink) {
  float sum = rows.sum[e];
  sum += __shfl_xor_sync(~0U, sum, 1);
  sum += __shfl_xor_sync(~0U, sum, 2);
  const float other = sink * kLog2e, base = fmaxf(rows.base[e], other);
  if (base == -kInfinity) return {0, -kInfinity};
  const float weight = exp2_fast(rows.base[e] - base);
  const float total = sum * weight + exp2_fast(other - base);
  return {weight / total, (base + log2f(total)) / kLog2e};
}

}  // namespace bough::cuda
