// attend_cached: decode attention over working sets. A block of threads takes one or a few splits of split_keys(D) keys of one KV head,
// each of its first four warps a quarter; the last block to finish a head merges the splits, in order. Where sets are filled more warps
// help to fetch.
#pragma once

#include "cuda/attend_cached_warp.cuh"
#include "cuda/prim/copy.cuh"
#include "cuda/prim/launch.cuh"
#include "cuda/prim/mma.cuh"
#include "cuda/working_set.cuh"

namespace bough::cuda {

inline constexpr int kCachedWarps = 4;    // that attend
inline constexpr int kFetchingWarps = 8;  // of a block where sets are filled

template <typename T, int D>
struct CachedShared {
  static constexpr int kKeys = split_keys(D);
  alignas(128) T k[kKeys * D];
  alignas(128) T v[kKeys * D];
  alignas(16) T q[16][D + 8];
  float m[kCachedWarps][16];
  float l[kCachedWarps][16];
  alignas(8) uint64_t arrived[2][kFetchingWarps];
  bool last;
};

// Where a warp leaves its weighted sum of values, [group, D]: in the room of the values that it read, or, where that is too small, of all
// keys and values.
template <typename T, int D, bool ROWS16>
struct WarpSums {
  static constexpr int kRoom = split_keys(D) / kCachedWarps * D / 2;  // floats in a warp's values
  static constexpr bool kOwn = (ROWS16 ? 16 : 8) * D <= kRoom;

  static __device__ __forceinline__ float* at(CachedShared<T, D>& s, int warp, int group) {
    if constexpr (kOwn) return reinterpret_cast<float*>(s.v) + warp * kRoom;
    return reinterpret_cast<float*>(s.k) + warp * group * D;
  }
};

// Query rows of the group, scaled and turned; the rest zero.
template <typename T, int D>
__device__ void turn_group(const Problem& p, const BlockInfo& b, int head, int position, T (*rows)[D + 8]) {
  constexpr int pieces = D / 8;
  const int at_once = blockDim.x / pieces;
  const bool turned = p.angles.pairs > 0 && !p.as_given;
  const int e = threadIdx.x % pieces * 8;
  if (threadIdx.x >= at_once * pieces) return;
  const EightAngles by = turned ? eight_angles(p.angles, position, e) : EightAngles{};
  for (int row = threadIdx.x / pieces; row < 16; row += at_once) {
    uint4 out{};
    if (row < p.group) {
      const T* q = static_cast<const T*>(p.q) + b.row * p.q_row + (head * p.group + row) * p.q_head;
      const uint4 own = *reinterpret_cast<const uint4*>(q + e);
      const uint4 partner = turned ? *reinterpret_cast<const uint4*>(q + partner_of(p.angles, e)) : own;
      out = turn_eight<T>(turned ? p.angles : Angles{}, by, e, own, partner, p.scale);
    }
    *reinterpret_cast<uint4*>(&rows[row][e]) = out;
  }
}

// Where the keys of a warp's lanes are: rows in the cache, positions, scales.
template <bool MOVES>
struct Source {
  int64_t k;
  int64_t v;
  KeyPosition<MOVES> position;
  float k_scale;
  float v_scale;

  template <Kv KV>
  static __device__ Source of(const Problem& p, const BlockInfo& b, const ContextView& context, int head, int rank) {
    const int token = context.token(rank), page = page_of(p.cache, b.seq, token);
    Source s;
    s.k = row_of(p.cache.k, p.cache.page_shift, b.seq, page, token, head);
    s.v = row_of(p.cache.v, p.cache.page_shift, b.seq, page, token, head);
    s.position = position_of_key<MOVES>(p, context, b.r0, rank, token);
    s.k_scale = KV == Kv::same ? 1.0F : scale_of(p.cache, p.cache.k, b.seq, token, head);
    s.v_scale = KV == Kv::same ? 1.0F : scale_of(p.cache, p.cache.v, b.seq, token, head);
    return s;
  }
  // That of another lane.
  template <Kv KV>
  __device__ Source from_lane(int lane) const {
    Source s;
    s.k = __shfl_sync(~0u, k, lane);
    s.v = __shfl_sync(~0u, v, lane);
    s.position = position.of_lane(lane);
    s.k_scale = KV == Kv::same ? 1.0F : __shfl_sync(~0u, k_scale, lane);
    s.v_scale = KV == Kv::same ? 1.0F : __shfl_sync(~0u, v_scale, lane);
    return s;
  }
};

// Two pieces of a key, half a row apart, turned and scaled.
template <typename T, Kv KV, bool MOVES>
__device__ __forceinline__ void turn_pieces(const Problem& p, HighAngles& high, int e, int apart, const Source<MOVES>& at, uint4 k[2]) {
  const bool turned = p.angles.pairs > 0 && !p.as_given;
  if (turned && p.angles.layout == RopeLayout::halves && p.angles.pairs == apart) {
    turn_halves<T>(high.at(at.position), at.k_scale, k[0], k[1]);
    return;
  }
  if (!turned && KV == Kv::same) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int own = e + i * apart;
    const uint4 partner = turned ? load_eight<T, KV>(p.cache.k.data, at.k + partner_of(p.angles, own)) : k[i];
    const EightAngles by = turned ? eight_angles(p.angles, at.position, own) : EightAngles{};
    k[i] = turn_eight<T>(turned ? p.angles : Angles{}, by, own, k[i], partner, at.k_scale);
  }
}

// Values of `count` keys, which `mine` says of each lane, to shared memory as they are. One warp; they arrive with its next wait_copies.
template <typename T, int D, bool MOVES>
__device__ __forceinline__ void fetch_values(const Problem& p, const Source<MOVES>& mine, int rank0, int count, T* v) {
  constexpr int pieces = D / 8;
  const int lane = threadIdx.x % 32;
  const T* data = static_cast<const T*>(p.cache.v.data);
  for (int i = 0; i < count * pieces; i += 32) {
    const int key = min((i + lane) / pieces, count - 1), piece = (i + lane) % pieces;
    const int64_t row = __shfl_sync(~0u, mine.v, key);
    if (i + lane < count * pieces) copy16(shared_address(v + key * D + place_of<D>(piece, rank0 + key) * 8), data + row + piece * 8);
  }
  commit_copies();
}

// Keys [from, from + count) of a split, ranks rank0 on, come from the context: into shared memory for this step, into the set for the
// next ones where keys stand still. One warp; D / 16 lanes a key, each with two pieces. What store_rows says of BULK holds.
template <typename T, Kv KV, int D, bool MOVES, bool BULK>
__device__ void take_in(const Problem& p, const BlockInfo& b, const ContextView& context, int head, int rank0, int from, int count,
                        const SetView<T, D>& set, CachedShared<T, D>& s) {
  constexpr int lanes = D / 16, keys = 32 / lanes, ahead = KV == Kv::same && BULK ? 4 : 2, apart = D / 2;
  const int lane = threadIdx.x % 32, own = min(lane / lanes, keys - 1), e = lane % lanes * 8;
  HighAngles high(p.angles, e);
  for (int base = 0; base < count; base += 32) {
    const auto mine = Source<MOVES>::template of<KV>(p, b, context, head, rank0 + min(base + lane, count - 1));
    const int here = min(32, count - base);
    if constexpr (KV == Kv::same) fetch_values<T, D>(p, mine, rank0 + base, here, s.v + (from + base) * D);
    for (int i = 0; i < here; i += keys * ahead) {
      Source<MOVES> at[ahead];
      uint4 k[ahead][2], v[KV == Kv::same ? 1 : ahead][2];
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        at[u] = mine.template from_lane<KV>(min(i + u * keys + own, here - 1));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          k[u][half] = load_eight<T, KV>(p.cache.k.data, at[u].k + e + half * apart);
          if constexpr (KV != Kv::same) v[u][half] = load_eight<T, KV>(p.cache.v.data, at[u].v + e + half * apart);
        }
      }
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const int key = base + i + u * keys + own, rank = rank0 + key;
        if (key >= base + here || lane >= keys * lanes) continue;
        turn_pieces<T, KV>(p, high, e, apart, at[u], k[u]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int place = (from + key) * D + place_of<D>(e / 8 + half * lanes, rank) * 8;
          *reinterpret_cast<uint4*>(s.k + place) = k[u][half];
          if constexpr (KV != Kv::same) {
            *reinterpret_cast<uint4*>(s.v + place) = turn_eight<T>(Angles{}, EightAngles{}, e, v[u][half], v[u][half], at[u].v_scale);
          }
        }
      }
    }
  }
  wait_copies<0>();
  if (MOVES && context.w0 > 0) return;
  store_rows<BULK>(set.k + static_cast<int64_t>(rank0) * D, s.k + from * D, count * D * static_cast<int>(sizeof(T)));
  store_rows<BULK>(set.v + static_cast<int64_t>(rank0) * D, s.v + from * D, count * D * static_cast<int>(sizeof(T)));
}

// o = sum over splits of weight * part, weights from the splits' greatest scores and sums; and lse.
template <typename T, int D>
__device__ void merge_splits(const Problem& p, const BlockInfo& b, int head, int splits, const float* part_o, const float* part_ml,
                             float* weights) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  constexpr int ahead = 8, four = 4;
  const int step = p.group * D;
  float4 first[ahead];  // of the first elements, on their way while the weights are made
  const int at0 = threadIdx.x * four;
#pragma unroll
  for (int u = 0; u < ahead; ++u) {
    first[u] = u < splits && at0 < step ? __ldcg(reinterpret_cast<const float4*>(part_o + static_cast<int64_t>(u) * step + at0)) : float4{};
  }
  for (int g = warp; g < p.group; g += blockDim.x / 32) {
    const float sink = p.sink_logits != nullptr ? p.sink_logits[head * p.group + g] : -INFINITY;
    float top = sink;
    for (int i = lane; i < splits; i += 32) top = fmaxf(top, __ldcg(part_ml + (i * p.group + g) * 2));
    for (int o = 16; o > 0; o /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    float sum = 0;
    for (int i = lane; i < splits; i += 32) {
      const float2 ml = __ldcg(reinterpret_cast<const float2*>(part_ml + (i * p.group + g) * 2));
      const float f = ml.x == -INFINITY ? 0.0F : __expf(ml.x - top);
      weights[i * p.group + g] = f;
      sum += f * ml.y;
    }
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
    if (sink != -INFINITY) sum += __expf(sink - top);
    for (int i = lane; i < splits; i += 32) weights[i * p.group + g] = sum > 0 ? weights[i * p.group + g] / sum : 0.0F;
    if (lane == 0 && p.lse != nullptr)
      p.lse[static_cast<int64_t>(b.row) * p.heads + head * p.group + g] = sum > 0 ? top + __logf(sum) : -INFINITY;
  }
  __syncthreads();
  for (int at = at0; at < step; at += blockDim.x * four) {
    const int g = at / D;
    float sum[four] = {0, 0, 0, 0};
    for (int i = 0; i < splits; i += ahead) {
      float4 x[ahead];
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        x[u] = i == 0 && at == at0 ? first[u]
               : i + u < splits    ? __ldcg(reinterpret_cast<const float4*>(part_o + static_cast<int64_t>(i + u) * step + at))
                                   : float4{};
      }
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const float weight = i + u < splits ? weights[(i + u) * p.group + g] : 0.0F;
        sum[0] += weight * x[u].x;
        sum[1] += weight * x[u].y;
        sum[2] += weight * x[u].z;
        sum[3] += weight * x[u].w;
      }
    }
    T* o = static_cast<T*>(p.o) + b.row * p.o_row + (head * p.group + g) * p.o_head + at % D;
    *reinterpret_cast<uint2*>(o) = {pack<T>(sum[0], sum[1]), pack<T>(sum[2], sum[3])};
  }
}

// The keys [first, first + keys) of a context, and of them those of one warp.
struct CachedSplit {
  int first = 0;
  int keys = 0;
  int mine = 0;
  bool renewed = false;  // taken in from the context
  int own = 0;           // 1: the last one is the row's own, which the set lacks
  int held = 0;          // of this warp's keys those that the set has
};

// The warps' sums of one split, weighted by their greatest scores, added in order.
template <typename T, int D, bool ROWS16>
__device__ void add_warps(CachedShared<T, D>& s, int group, float* part_o, float* part_ml) {
  for (int i = threadIdx.x * 4; i < group * D; i += blockDim.x * 4) {
    const int g = i / D;
    const float top = top_of<kCachedWarps>(s.m, g);
    float4 y{};
#pragma unroll
    for (int u = 0; u < kCachedWarps; ++u) {
      const float f = s.m[u][g] == -INFINITY ? 0.0F : __expf(s.m[u][g] - top);
      const float4 x = *reinterpret_cast<const float4*>(WarpSums<T, D, ROWS16>::at(s, u, group) + i);
      y = {y.x + f * x.x, y.y + f * x.y, y.z + f * x.z, y.w + f * x.w};
    }
    *reinterpret_cast<float4*>(part_o + i) = y;
  }
  if (threadIdx.x < group) {
    const int g = threadIdx.x;
    const float top = top_of<kCachedWarps>(s.m, g);
    float sum = 0;
    for (int u = 0; u < kCachedWarps; ++u) sum += s.m[u][g] == -INFINITY ? 0.0F : s.l[u][g] * __expf(s.m[u][g] - top);
    *reinterpret_cast<float2*>(part_ml + g * 2) = {top, sum};
  }
}

constexpr int cached_warps(bool fills) { return fills ? kFetchingWarps : kCachedWarps; }
constexpr int cached_blocks(int d, bool fills) { return d > 128 ? 1 : fills ? 2 : 3; }

// A row between refreshes whose keys move: its set is filled from the frozen context, which begins as at the last refresh and ends with
// the row. A context of every token stands still.
__device__ __forceinline__ void thaw(const Problem& p, int w0, BlockInfo& b) {
  if (b.renewal != Renewal::cached || w0 == 0) return;
  b.renewal = p.stages.count > 0 ? Renewal::search : Renewal::complete;
  b.w0 = w0;
  b.sinks = min(p.sinks, w0);
}

// ROWS16: groups of more than 8 heads use both halves of a product's 16 rows. FILLS: some sets may be renewed; a block then takes one
// split. MOVES: as moves(p.positions) says; sets are filled then.
template <typename T, Kv KV, int D, bool ROWS16, bool FILLS, bool MOVES>
__global__ void __launch_bounds__(cached_warps(FILLS) * 32, cached_blocks(D, FILLS)) attend_cached_kernel(Problem p, WorkingSets w) {
  constexpr int kKeys = split_keys(D), kMine = kKeys / kCachedWarps, warps = cached_warps(FILLS);
  using Sums = WarpSums<T, D, ROWS16>;
  extern __shared__ __align__(128) unsigned char raw[];
  auto& s = *reinterpret_cast<CachedShared<T, D>*>(raw);
  const int warp = threadIdx.x / 32, head = blockIdx.y, block = blockIdx.z, begin_split = blockIdx.x * w.run;
  begin();
  const int slot = owner_of(p, block), shift = w.shift[slot];
  BlockInfo b = block_at(p, block);
  if (b.rows == 0) return;
  if constexpr (MOVES) thaw(p, w.w0[slot], b);
  const bool renewed = FILLS && b.renewal != Renewal::cached;
  ContextView context = context_view(p, b, slot, head);
  const int size = min(renewed ? context.size() : shift + b.r0 + 1, w.capacity);
  const int splits = (size + kKeys - 1) / kKeys, end_split = min(splits, begin_split + w.run);
  if (begin_split >= splits) return;
  if (!renewed) context = {nullptr, 0, 0, 0, b.r0 + 1 - size, b.r0 + 1};  // only of the row itself, the last key, the token is asked
  const SetView<T, D> set(w, p.kv_heads, slot, head);
  const bool attends = warp < kCachedWarps;
  const int from = warp * kMine;
  const auto split_at = [&](int index) {
    CachedSplit x;
    if (index >= end_split) return x;
    x.first = index * kKeys;
    x.keys = min(kKeys, size - x.first);
    x.mine = attends ? max(0, min(kMine, x.keys - from)) : 0;
    x.renewed = renewed && (MOVES || b.first == 0 || x.first + x.keys > b.sinks);  // sinks keep their ranks
    x.own = !renewed && x.first + x.keys == size ? 1 : 0;
    x.held = x.renewed ? 0 : max(0, min(x.mine, x.keys - x.own - from));
    return x;
  };
  RowCopies key_copies(&s.arrived[0][warp]), value_copies(&s.arrived[1][warp]);
  const auto copy_keys = [&](const CachedSplit& x) {
    key_copies.begin(s.k + from * D, set.k + static_cast<int64_t>(x.first + from) * D, x.held * D * static_cast<int>(sizeof(T)));
  };
  const auto copy_values = [&](const CachedSplit& x) {
    value_copies.begin(s.v + from * D, set.v + static_cast<int64_t>(x.first + from) * D, x.held * D * static_cast<int>(sizeof(T)));
  };
  CachedSplit now = split_at(begin_split);
  copy_keys(now);
  copy_values(now);
  const int part_keys = kKeys / warps, at = warp * part_keys;
  if (now.renewed && at < now.keys)
    take_in<T, KV, D, MOVES, FILLS>(p, b, context, head, now.first + at, at, min(part_keys, now.keys - at), set, s);
  if (renewed && now.first + now.keys == size && head == 0 && threadIdx.x == 0) {
    w.shift[slot] = size - (b.r0 + 1);
    if (MOVES) w.w0[slot] = context.w0;
  }
  turn_group<T, D>(p, b, head, position_of_row<MOVES>(p, context, b.r0, 0, size - 1), s.q);

  const int64_t part = (static_cast<int64_t>(block) * p.kv_heads + head) * w.splits;
  float* part_o = w.part_o + part * p.group * D;
  float* part_ml = w.part_ml + part * p.group * 2;
  for (int split = begin_split;; ++split) {
    const CachedSplit next = FILLS ? CachedSplit{} : split_at(split + 1);
    if (now.own > 0 && warp == warps - 1) take_in<T, KV, D, MOVES, FILLS>(p, b, context, head, size - 1, now.keys - 1, 1, set, s);
    if (split == begin_split || now.own > 0) __syncthreads();
    WarpAttention<T, D, ROWS16, kMine> a;
    key_copies.template wait<1>();
    if (now.mine > 0) a.score(s.q, s.k, from);
    if constexpr (!FILLS) {
      RowCopies::release();
      __syncwarp();
      copy_keys(next);
    }
    if (now.mine > 0) a.weigh(p.softcap, now.mine, p.sliding > 0 ? size - p.sliding - now.first - from : 0);
    value_copies.template wait<FILLS ? 0 : 1>();
    if (now.mine > 0) a.add_values(s.v, from, now.mine);
    if constexpr (FILLS) {
      wait_stores();
      __syncthreads();
    } else if constexpr (Sums::kOwn) {
      __syncwarp();
    } else {
      __syncthreads();
    }
    if (attends) a.leave(p.group, s.m[warp], s.l[warp], Sums::at(s, warp, p.group));
    __syncthreads();
    add_warps<T, D, ROWS16>(s, p.group, part_o + static_cast<int64_t>(split) * p.group * D, part_ml + split * p.group * 2);
    if (FILLS || split + 1 == end_split) break;
    RowCopies::release();
    __syncthreads();
    copy_values(next);
    now = next;
  }
  __threadfence();
  __syncthreads();
  int32_t* done = w.done + static_cast<int64_t>(block) * p.kv_heads + head;
  const int attended = end_split - begin_split;
  if (threadIdx.x == 0) s.last = atomicAdd(done, attended) == splits - attended;
  __syncthreads();
  if (!s.last) return;
  __threadfence();
  if (threadIdx.x == 0) *done = 0;
  merge_splits<T, D>(p, b, head, splits, part_o, part_ml, reinterpret_cast<float*>(s.v));
}

template <typename T, Kv KV, int D>
cudaError_t attend_cached_instance(const Problem& p, const WorkingSets& sets, cudaStream_t stream) {
  constexpr int64_t kMany = 2048;  // splits: from here on a block of threads takes a few, the next one's keys on their way
  constexpr size_t bytes = sizeof(CachedShared<T, D>);
  WorkingSets w = sets;
  const bool moving = moves(p.positions), fills = w.fills || moving;
  const bool one = fills || static_cast<int64_t>(w.splits) * p.kv_heads * p.nb < kMany || (p.group > 8 && !WarpSums<T, D, true>::kOwn);
  w.run = one ? 1 : 2;
  const dim3 grid(static_cast<unsigned>((w.splits + w.run - 1) / w.run), static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(p.nb));
  const auto go = [&](auto few, auto many) {  // kernels of groups of at most 8 heads and of more
    return launch(p.group > 8 ? many : few, grid, static_cast<unsigned>(cached_warps(fills) * 32), bytes, stream, p, w);
  };
  if (moving) return go(attend_cached_kernel<T, KV, D, false, true, true>, attend_cached_kernel<T, KV, D, true, true, true>);
  if (fills) return go(attend_cached_kernel<T, KV, D, false, true, false>, attend_cached_kernel<T, KV, D, true, true, false>);
  return go(attend_cached_kernel<T, KV, D, false, false, false>, attend_cached_kernel<T, KV, D, true, false, false>);
}

}  // namespace bough::cuda
