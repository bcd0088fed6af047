// Where things are on the device: elements of a cache, candidates of a stage, tokens of a context, angles of a position.
#pragma once

#include "cuda/prim/convert.cuh"
#include "cuda/problem.h"
#include "steps/positions.h"

namespace bough::cuda {

__device__ __forceinline__ int page_of(const Cache& c, int seq, int token) {
  const int page = token >> c.page_shift;
  return c.table != nullptr ? __ldg(c.table + seq * c.table_stride + page) : page;
}

// Element 0 of a token's row. `page` as page_of says.
__device__ __forceinline__ int64_t row_of(const Plane& p, int page_shift, int seq, int page, int token, int head) {
  const int within = token & ((1 << page_shift) - 1);
  return seq * p.sequence + static_cast<int64_t>(page) * p.strides.page + static_cast<int64_t>(within) * p.strides.token +
         static_cast<int64_t>(head) * p.strides.head;
}
__device__ __forceinline__ float scale_of(const Cache& c, const Plane& p, int seq, int token, int head) {
  if (p.scale == nullptr) return 1.0F;
  const Steps& s = p.scale_strides;
  const int within = token & ((1 << c.page_shift) - 1);
  return __ldg(p.scale + seq * p.scale_sequence + static_cast<int64_t>(page_of(c, seq, token)) * s.page +
               static_cast<int64_t>(within) * s.token + static_cast<int64_t>(head) * s.head);
}

// The token that a row of a cache stands for whose rows are runs of 1 << shift keys: the middle one.
__device__ __forceinline__ int middle_token(int row, int shift) { return (row << shift) + ((1 << shift) >> 1); }

// The same of a key in the summary, in elements from the keys' data on. REQUIRES: the summary holds the token.
__device__ __forceinline__ int64_t summary_row(const Cache& c, int seq, int page, int token, int head) {
  return c.summary_from + row_of(c.summary, c.page_shift - c.summary_shift, seq, page, token >> c.summary_shift, head);
}
__device__ __forceinline__ float summary_scale(const Cache& c, int seq, int page, int token, int head) {
  const Plane& p = c.summary;
  if (p.scale == nullptr) return 1.0F;
  const Steps& s = p.scale_strides;
  const int within = (token & ((1 << c.page_shift) - 1)) >> c.summary_shift;
  return __ldg(p.scale + seq * p.scale_sequence + static_cast<int64_t>(page) * s.page + static_cast<int64_t>(within) * s.token +
               static_cast<int64_t>(head) * s.head);
}

// What the block of rows [r0, r0 + rows) sees, with every stage still to run where any is.
__device__ __forceinline__ BlockInfo block_of(const Problem& p, int seq, int row, int rows, int r0) {
  const Placement& a = p.placement;
  BlockInfo b;
  b.seq = seq;
  b.row = row;
  b.rows = rows;
  b.r0 = r0;
  b.first = p.stages.count;
  const int r1 = r0 + rows;
  if (p.sliding > 0) {
    b.w0 = max(0, r0 + 1 - p.sliding);
    return b;
  }
  if (a.dense || r1 <= p.sinks + a.window + a.selected || r1 < a.dense_below) return b;
  b.w0 = min(r1, max(p.sinks, (r0 + 1 - a.window) >> a.last_shift << a.last_shift));
  b.sinks = min(p.sinks, b.w0);
  if (p.stages.count > 0) {
    b.renewal = Renewal::search;
    b.first = 0;
  }
  return b;
}

// Block `index` of a prefill that was placed, or of a decode.
__device__ __forceinline__ BlockInfo block_at(const Problem& p, int index) {
  if (p.blocks != nullptr) return p.blocks[index];
  const int length = p.placement.lengths[index], due = p.placement.stage[index];
  if (length <= 0) return BlockInfo{};
  BlockInfo b = block_of(p, index, index, 1, length - 1);
  // A context of all tokens grows as the text does: it is made once, at a step from the first stage on.
  if (due >= p.placement.due_limit || (due > 0 && b.renewal == Renewal::complete && b.w0 == 0)) {
    b.renewal = Renewal::cached;
    b.first = p.stages.count;
  } else if (b.renewal == Renewal::search) {
    b.first = min(due, p.stages.count - 1);
  }
  return b;
}

// Candidates of one block's stage and list head, in ascending order.
struct StageView {
  const int32_t* parents;
  Meta meta;
  int shift;  // logarithm of the chunk
  int per;    // logarithm of the pieces of a parent

  __device__ __forceinline__ int chunk() const { return 1 << shift; }
  __device__ __forceinline__ int count() const { return (meta.parents << per) + meta.added; }
  __device__ __forceinline__ int start(int j) const {
    const int n = meta.parents << per;
    if (j >= n) return meta.end + ((j - n) << shift);
    return parents[j >> per] + ((j & ((1 << per) - 1)) << shift);
  }
  // Candidates that start below `limit`.
  __device__ __forceinline__ int below(int limit) const {
    int n = count();
    while (n > 0 && start(n - 1) >= limit) --n;
    return n;
  }
};

__device__ __forceinline__ int owner_of(const Problem& p, int block) { return p.owner != nullptr ? p.owner[block] : block; }

__device__ __forceinline__ StageView stage_view(const Problem& p, const BlockInfo& b, int owner, int stage, int head) {
  StageView v;
  v.shift = p.stages.shift[stage];
  if (stage == 0) {
    v.parents = nullptr;
    v.per = 0;
    v.meta.end = p.sinks;
    v.meta.added = max(0, (b.w0 - p.sinks + v.chunk() - 1) >> v.shift);
    return v;
  }
  const int h = p.list_heads == 1 ? 0 : head;
  v.parents = p.lists.start[stage] + (static_cast<int64_t>(owner) * p.list_heads + h) * p.lists.capacity[stage];
  v.meta = p.lists.meta[stage][owner];
  if (stage == b.first) v.meta.added = max(v.meta.added, (b.w0 - v.meta.end + v.chunk() - 1) >> v.shift);  // what has left the window since
  v.per = p.stages.shift[stage - 1] - v.shift;
  return v;
}

// The context of one block and KV head: [0, sinks) | selected chunks | [w0, r1), numbered by rank.
struct ContextView {
  const int32_t* start;
  int sinks;
  int selected;  // tokens
  int shift;     // logarithm of a selected chunk
  int w0;
  int r1;

  __device__ __forceinline__ int size() const { return sinks + selected + r1 - w0; }
  __device__ __forceinline__ int token(int rank) const {
    if (rank < sinks) return rank;
    rank -= sinks;
    if (rank < selected) return start[rank >> shift] + (rank & ((1 << shift) - 1));
    return w0 + rank - selected;
  }
};

__device__ __forceinline__ ContextView context_view(const Problem& p, const BlockInfo& b, int owner, int head) {
  const int last = p.stages.count;
  ContextView c{nullptr, b.sinks, 0, 0, b.w0, b.r0 + b.rows};
  if (b.renewal == Renewal::search) {
    const int h = p.list_heads == 1 ? 0 : head;
    c.start = p.lists.start[last] + (static_cast<int64_t>(owner) * p.list_heads + h) * p.lists.capacity[last];
    c.shift = p.stages.shift[last - 1];
    c.selected = p.lists.meta[last][owner].parents << c.shift;
  }
  return c;
}

// Where a key stands in final attention. MOVES: as moves(p.positions) says.
template <bool MOVES>
struct KeyPosition {
  int32_t at;

  __device__ __forceinline__ KeyPosition of_lane(int lane) const { return {__shfl_sync(~0U, at, lane)}; }
};
template <>
struct KeyPosition<true> {
  int32_t at;
  int32_t squeezed;  // `at` where angles are not blended

  __device__ __forceinline__ KeyPosition of_lane(int lane) const { return {__shfl_sync(~0U, at, lane), __shfl_sync(~0U, squeezed, lane)}; }
};
__device__ __forceinline__ TokenPositions token_positions(const Problem& p, const ContextView& c, int r0) {
  return {{p.positions, p.placement.window, p.trained_context}, c.sinks + c.selected, c.w0, r0, c.r1};
}
// Of the key of one rank in the context of a block from r0 on, which is `token`.
template <bool MOVES>
__device__ __forceinline__ KeyPosition<MOVES> position_of_key(const Problem& p, const ContextView& c, int r0, int rank, int token) {
  if constexpr (MOVES) {
    const TokenPositions positions = token_positions(p, c, r0);
    const auto at = static_cast<int32_t>(positions.key(rank, token));
    return {at, positions.blends() ? static_cast<int32_t>(positions.squeezed(token)) : at};
  } else {
    return {p.positions == Positions::true_positions ? token : rank};
  }
}
// Of a row, whose rank is `rank`.
template <bool MOVES>
__device__ __forceinline__ int position_of_row(const Problem& p, const ContextView& c, int r0, int row, int rank) {
  if constexpr (MOVES) return static_cast<int>(token_positions(p, c, r0).query(r0 + row));
  return p.positions == Positions::true_positions ? r0 + row : max(0, rank);
}

// Angles of a key that stands at two positions: streaming's and f's.
__device__ __forceinline__ float4 blended(float4 a, float4 b) {
  constexpr float s = kStreamingShare;
  return {s * a.x + (1 - s) * b.x, s * a.y + (1 - s) * b.y, s * a.z + (1 - s) * b.z, s * a.w + (1 - s) * b.w};
}

// One rotation after the other, of two pairs.
__device__ __forceinline__ float4 turned_on(float4 h, float4 l) {
  return {h.x * l.x - h.y * l.y, h.y * l.x + h.x * l.y, h.z * l.z - h.w * l.w, h.w * l.z + h.z * l.w};
}
__device__ __forceinline__ float4 high_angles(const Angles& a, int position, int i) {
  return __ldg(reinterpret_cast<const float4*>(a.high + (static_cast<int64_t>(position >> 6) * a.pairs + i) * 2));
}
__device__ __forceinline__ float4 low_angles(const Angles& a, int position, int i) {
  return __ldg(reinterpret_cast<const float4*>(a.low + ((position & 63) * a.pairs + i) * 2));
}
// (cos, sin) of pairs i and i + 1 at a position. REQUIRES: i is even.
__device__ __forceinline__ float4 angles(const Angles& a, int position, int i) {
  return turned_on(high_angles(a, position, i), low_angles(a, position, i));
}

// The first of the two pairs that elements [e + 2 i, e + 2 i + 2) turn in; i < 4, e a multiple of 8. REQUIRES: e < 2 * pairs.
__device__ __forceinline__ int pair_of(const Angles& a, int e, int i) {
  if (a.layout == RopeLayout::interleaved) return (e / 2 + i) & ~1;
  return (e < a.pairs ? e : e - a.pairs) + 2 * i;
}
// Angles that eight elements turn by: c[i] of pair_of(a, e, i).
struct EightAngles {
  float4 c[4];
};
__device__ __forceinline__ EightAngles eight_angles(const Angles& a, int position, int e) {
  EightAngles x{};
  if (e < 2 * a.pairs) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x.c[i] = angles(a, position, pair_of(a, e, i));
  }
  return x;
}
// Those of a key's one position, blended with those of its other one.
__device__ __forceinline__ EightAngles blended_to(const Angles& a, EightAngles x, KeyPosition<true> key, int e) {
  if (key.squeezed == key.at) return x;
  const EightAngles y = eight_angles(a, key.squeezed, e);
#pragma unroll
  for (int i = 0; i < 4; ++i) x.c[i] = blended(x.c[i], y.c[i]);
  return x;
}
__device__ __forceinline__ EightAngles eight_angles(const Angles& a, KeyPosition<false> key, int e) { return eight_angles(a, key.at, e); }
__device__ __forceinline__ EightAngles eight_angles(const Angles& a, KeyPosition<true> key, int e) {
  return blended_to(a, eight_angles(a, key.at, e), key, e);
}

// The same for one position after another: what 64 neighbours share is kept.
class HighAngles {
 public:
  __device__ __forceinline__ HighAngles(const Angles& a, int e) : a_(a), e_(e) {}
  __device__ __forceinline__ EightAngles at(int position) {
    if (e_ >= 2 * a_.pairs) return {};
    if (position >> 6 != held_) {
      held_ = position >> 6;
#pragma unroll
      for (int i = 0; i < 4; ++i) high_.c[i] = high_angles(a_, position, pair_of(a_, e_, i));
    }
    EightAngles x;
#pragma unroll
    for (int i = 0; i < 4; ++i) x.c[i] = turned_on(high_.c[i], low_angles(a_, position, pair_of(a_, e_, i)));
    return x;
  }
  __device__ __forceinline__ EightAngles at(KeyPosition<false> key) { return at(key.at); }
  __device__ __forceinline__ EightAngles at(KeyPosition<true> key) { return blended_to(a_, at(key.at), key, e_); }

 private:
  const Angles& a_;
  int e_;
  int held_ = -1;
  EightAngles high_{};
};

// Eight elements from element e on (a multiple of 8) of a row, turned. `x` are those elements, `partner` the eight that they turn with
// (see partner_of), both scaled by s. Elements from 2 * pairs on pass.
template <typename T>
__device__ __forceinline__ uint4 turn_eight(const Angles& a, const EightAngles& by, int e, uint4 x, uint4 partner, float s) {
  const uint32_t own[4] = {x.x, x.y, x.z, x.w}, other[4] = {partner.x, partner.y, partner.z, partner.w};
  const bool turns = e < 2 * a.pairs;
  const float sign = e < a.pairs ? -s : s;
  uint32_t out[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = unpack<T>(own[i]);
    float y0 = u.x * s, y1 = u.y * s;
    if (turns) {
      const float4 c = by.c[i];
      if (a.layout == RopeLayout::interleaved) {
        const float2 r = i % 2 == 0 ? float2{c.x, c.y} : float2{c.z, c.w};
        const float x0 = y0, x1 = y1;
        y0 = x0 * r.x - x1 * r.y;
        y1 = x1 * r.x + x0 * r.y;
      } else {
        const float2 w = unpack<T>(other[i]);
        y0 = y0 * c.x + sign * w.x * c.y;
        y1 = y1 * c.z + sign * w.y * c.w;
      }
    }
    out[i] = pack<T>(y0, y1);
  }
  return {out[0], out[1], out[2], out[3]};
}
template <typename T>
__device__ __forceinline__ uint4 turn_eight(const Angles& a, int position, int e, uint4 x, uint4 partner, float s = 1.0F) {
  return turn_eight<T>(a, eight_angles(a, position, e), e, x, partner, s);
}
// Eight elements and the eight that they turn with, in halves: low elements [e, e + 8), high ones [e + pairs, e + pairs + 8).
template <typename T>
__device__ __forceinline__ void turn_halves(const EightAngles& by, float s, uint4& low, uint4& high) {
  uint32_t x[4] = {low.x, low.y, low.z, low.w}, y[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = unpack<T>(x[i]), w = unpack<T>(y[i]);
    const float4 c = by.c[i];
    x[i] = pack<T>((u.x * c.x - w.x * c.y) * s, (u.y * c.z - w.y * c.w) * s);
    y[i] = pack<T>((w.x * c.x + u.x * c.y) * s, (w.y * c.z + u.y * c.w) * s);
  }
  low = {x[0], x[1], x[2], x[3]};
  high = {y[0], y[1], y[2], y[3]};
}

// The element from which the partners of elements [e, e + 8) begin. REQUIRES: half of the turned elements is a multiple of 8.
__device__ __forceinline__ int partner_of(const Angles& a, int e) {
  if (a.layout == RopeLayout::interleaved || e >= 2 * a.pairs) return e;
  return e < a.pairs ? e + a.pairs : e - a.pairs;
}

}  // namespace bough::cuda
