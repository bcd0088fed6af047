// attend_cached: decode attention over working sets. A block of threads takes split_keys(D) keys of one KV head, each of its first four
// warps a quarter; the last block to finish a head merges the splits, in order. Where sets are filled more warps help to fetch.
#pragma once

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
  alignas(8) uint64_t arrived[kCachedWarps];
  bool last;
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
struct Source {
  int64_t k;
  int64_t v;
  int position;
  float k_scale;
  float v_scale;

  template <Kv KV>
  static __device__ Source of(const Problem& p, const BlockInfo& b, const ContextView& context, int head, int rank) {
    const int token = context.token(rank), page = page_of(p.cache, b.seq, token);
    Source s;
    s.k = row_of(p.cache.k, p.cache.page_shift, b.seq, page, token, head);
    s.v = row_of(p.cache.v, p.cache.page_shift, b.seq, page, token, head);
    s.position = p.true_positions ? token : rank;
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
    s.position = __shfl_sync(~0u, position, lane);
    s.k_scale = KV == Kv::same ? 1.0F : __shfl_sync(~0u, k_scale, lane);
    s.v_scale = KV == Kv::same ? 1.0F : __shfl_sync(~0u, v_scale, lane);
    return s;
  }
};

// Two pieces of a key, half a row apart, turned and scaled.
template <typename T, Kv KV>
__device__ __forceinline__ void turn_pieces(const Problem& p, HighAngles& high, int e, int apart, const Source& at, uint4 k[2]) {
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

// Keys [from, from + count) of a split, ranks rank0 on, come from the context: into shared memory for this step, into the set for the
// next ones. One warp; D / 16 lanes a key, each with two pieces.
template <typename T, Kv KV, int D>
__device__ void take_in(const Problem& p, const BlockInfo& b, const ContextView& context, int head, int rank0, int from, int count,
                        const SetView<T, D>& set, CachedShared<T, D>& s) {
  constexpr int lanes = D / 16, keys = 32 / lanes, ahead = 2, apart = D / 2;
  const int lane = threadIdx.x % 32, own = min(lane / lanes, keys - 1), e = lane % lanes * 8;
  HighAngles high(p.angles, e);
  for (int base = 0; base < count; base += 32) {
    const Source mine = Source::of<KV>(p, b, context, head, rank0 + min(base + lane, count - 1));
    const int here = min(32, count - base);
    for (int i = 0; i < here; i += keys * ahead) {
      Source at[ahead];
      uint4 k[ahead][2], v[ahead][2];
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        at[u] = mine.from_lane<KV>(min(i + u * keys + own, here - 1));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          k[u][half] = load_eight<T, KV>(p.cache.k.data, at[u].k + e + half * apart);
          v[u][half] = load_eight<T, KV>(p.cache.v.data, at[u].v + e + half * apart);
        }
      }
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const int key = base + i + u * keys + own, rank = rank0 + key;
        if (key >= base + here || lane >= keys * lanes) continue;
        turn_pieces<T, KV>(p, high, e, apart, at[u], k[u]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (KV != Kv::same) v[u][half] = turn_eight<T>(Angles{}, EightAngles{}, e, v[u][half], v[u][half], at[u].v_scale);
          const int place = place_of<D>(e / 8 + half * lanes, rank) * 8;
          *reinterpret_cast<uint4*>(s.k + (from + key) * D + place) = k[u][half];
          *reinterpret_cast<uint4*>(s.v + (from + key) * D + place) = v[u][half];
          *reinterpret_cast<uint4*>(set.k + static_cast<int64_t>(rank) * D + place) = k[u][half];
          *reinterpret_cast<uint4*>(set.v + static_cast<int64_t>(rank) * D + place) = v[u][half];
        }
      }
    }
  }
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

__device__ __forceinline__ float top_of(const float (*m)[16], int g) {
  float top = m[0][g];
#pragma unroll
  for (int i = 1; i < kCachedWarps; ++i) top = fmaxf(top, m[i][g]);
  return top;
}

// ROWS16: groups of more than 8 heads use both halves of a product's 16 rows.
template <typename T, Kv KV, int D, bool ROWS16>
__global__ void __launch_bounds__(kFetchingWarps * 32, D <= 128 ? 2 : 1) attend_cached_kernel(Problem p, WorkingSets w) {
  constexpr int kKeys = split_keys(D), kMine = kKeys / kCachedWarps, kTiles = kMine / 8, kHalves = ROWS16 ? 2 : 1;
  extern __shared__ __align__(128) unsigned char raw[];
  auto& s = *reinterpret_cast<CachedShared<T, D>*>(raw);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, split = blockIdx.x, head = blockIdx.y, block = blockIdx.z;
  begin();
  const int slot = owner_of(p, block), shift = w.shift[slot];
  const BlockInfo b = block_at(p, block);
  if (b.rows == 0) return;
  const bool renewed = b.renewal != Renewal::cached;
  ContextView context = context_view(p, b, slot, head);
  const int size = min(renewed ? context.size() : shift + b.r0 + 1, w.capacity);
  const int first = split * kKeys;
  if (first >= size) return;
  if (!renewed) context = {nullptr, 0, 0, 0, b.r0 + 1 - size, b.r0 + 1};  // only of the row itself, the last key, the token is asked
  const SetView<T, D> set(w, p.kv_heads, slot, head);
  const int keys = min(kKeys, size - first), from = warp * kMine;
  const bool attends = warp < kCachedWarps;
  const int mine = attends ? min(kMine, keys - from) : 0;       // keys of this warp
  const int own = !renewed && first + keys == size ? 1 : 0;     // the split has the row's own key, which the set lacks
  const int held = renewed ? 0 : min(mine, keys - own - from);  // of this warp's keys those that the set has
  if (held > 0) {
    copy_pair(s.k + from * D, set.k + static_cast<int64_t>(first + from) * D, s.v + from * D,
              set.v + static_cast<int64_t>(first + from) * D, held * D * 2, &s.arrived[warp]);
  }
  const int warps = blockDim.x / 32, part_keys = kKeys / warps;
  if (renewed && warp * part_keys < keys) {
    const int at = warp * part_keys;
    take_in<T, KV, D>(p, b, context, head, first + at, at, min(part_keys, keys - at), set, s);
  }
  if (own > 0 && warp == warps - 1) take_in<T, KV, D>(p, b, context, head, size - 1, keys - 1, 1, set, s);
  if (renewed && first + keys == size && head == 0 && threadIdx.x == 0) w.shift[slot] = size - (b.r0 + 1);
  turn_group<T, D>(p, b, head, p.true_positions ? b.r0 : size - 1, s.q);
  __syncthreads();

  float m[kHalves], l[kHalves], acc[D / 8][4];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) m[h] = -INFINITY, l[h] = 0;
#pragma unroll
  for (int i = 0; i < D / 8; ++i) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
  if (mine > 0) {
    if (held > 0) wait_pair(&s.arrived[warp]);
    float x[kTiles][4];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0;
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      uint32_t qa[4];
      load_matrix4(qa, shared_address(&s.q[lane % 16][kk * 16 + lane / 16 * 8]));
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        const int key = from + n * 8 + lane % 8 + lane / 16 * 8;
        uint32_t kb[4];
        load_matrix4(kb, shared_address(s.k + key * D + place_of<D>(kk * 2 + lane / 8 % 2, key) * 8));
        mma16816<T>(x[n], qa[0], qa[1], qa[2], qa[3], kb[0], kb[1]);
        mma16816<T>(x[n + 1], qa[0], qa[1], qa[2], qa[3], kb[2], kb[3]);
      }
    }
    const int below = p.sliding > 0 ? size - p.sliding - first - from : 0;  // keys of this warp that have left a sliding window
    uint32_t weight[kTiles][2];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& y = x[n][2 * h + e];
          const int key = n * 8 + lane % 4 * 2 + e;
          if (p.softcap > 0) y = p.softcap * tanhf(y / p.softcap);
          if (key >= mine || key < below) y = -INFINITY;
          m[h] = fmaxf(m[h], y);
        }
      }
      m[h] = fmaxf(m[h], __shfl_xor_sync(~0u, m[h], 1));
      m[h] = fmaxf(m[h], __shfl_xor_sync(~0u, m[h], 2));
      const float top = m[h] == -INFINITY ? 0.0F : m[h];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float u = __expf(x[n][2 * h] - top), v = __expf(x[n][2 * h + 1] - top);
        l[h] += u + v;
        weight[n][h] = pack<T>(u, v);
      }
      l[h] += __shfl_xor_sync(~0u, l[h], 1);
      l[h] += __shfl_xor_sync(~0u, l[h], 2);
    }
    // Rows beyond the end hold anything, and 0 * NaN is NaN.
    const int groups = (mine + 15) / 16;
    if (mine % 16 != 0) {
      for (int i = lane; i < (groups * 16 - mine) * (D / 8); i += 32) {
        *reinterpret_cast<uint4*>(s.v + (from + mine + i / (D / 8)) * D + i % (D / 8) * 8) = {};
      }
      __syncwarp();
    }
#pragma unroll
    for (int g = 0; g < kMine / 16; ++g) {
      if (g >= groups) break;
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        const int key = from + g * 16 + lane % 16;
        uint32_t vb[4];
        load_matrix4_transposed(vb, shared_address(s.v + key * D + place_of<D>(n + lane / 16, key) * 8));
        const uint32_t high0 = ROWS16 ? weight[2 * g][kHalves - 1] : 0, high1 = ROWS16 ? weight[2 * g + 1][kHalves - 1] : 0;
        mma16816<T>(acc[n], weight[2 * g][0], high0, weight[2 * g + 1][0], high1, vb[0], vb[1]);
        mma16816<T>(acc[n + 1], weight[2 * g][0], high0, weight[2 * g + 1][0], high1, vb[2], vb[3]);
      }
    }
  }
  const int row = lane / 4;
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    if (attends && lane % 4 == 0) s.m[warp][row + 8 * h] = m[h], s.l[warp][row + 8 * h] = l[h];
  }
  __syncthreads();                              // keys and values are read: their room takes the warps' sums
  float* sums = reinterpret_cast<float*>(s.k);  // [warps][group][D]
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    const int g = row + 8 * h;
    if (g >= p.group || !attends) continue;
    const float f = m[h] == -INFINITY ? 0.0F : __expf(m[h] - top_of(s.m, g));
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      *reinterpret_cast<float2*>(sums + (warp * p.group + g) * D + i * 8 + lane % 4 * 2) = {acc[i][2 * h] * f, acc[i][2 * h + 1] * f};
    }
  }
  __syncthreads();
  const int64_t part = (static_cast<int64_t>(block) * p.kv_heads + head) * w.splits;
  float* part_o = w.part_o + part * p.group * D;
  float* part_ml = w.part_ml + part * p.group * 2;
  const int step = p.group * D;
  for (int i = threadIdx.x * 4; i < step; i += blockDim.x * 4) {
    float4 y = *reinterpret_cast<const float4*>(sums + i);
#pragma unroll
    for (int u = 1; u < kCachedWarps; ++u) {
      const float4 x = *reinterpret_cast<const float4*>(sums + u * step + i);
      y = {y.x + x.x, y.y + x.y, y.z + x.z, y.w + x.w};
    }
    *reinterpret_cast<float4*>(part_o + static_cast<int64_t>(split) * step + i) = y;
  }
  if (threadIdx.x < p.group) {
    const int g = threadIdx.x;
    const float top = top_of(s.m, g);
    float sum = 0;
    for (int i = 0; i < kCachedWarps; ++i) sum += s.m[i][g] == -INFINITY ? 0.0F : s.l[i][g] * __expf(s.m[i][g] - top);
    *reinterpret_cast<float2*>(part_ml + (split * p.group + g) * 2) = {top, sum};
  }
  __threadfence();
  __syncthreads();
  const int splits = (size + kKeys - 1) / kKeys;
  int32_t* done = w.done + static_cast<int64_t>(block) * p.kv_heads + head;
  if (threadIdx.x == 0) s.last = atomicAdd(done, 1) == splits - 1;
  __syncthreads();
  if (!s.last) return;
  __threadfence();
  if (threadIdx.x == 0) *done = 0;
  merge_splits<T, D>(p, b, head, splits, part_o, part_ml, reinterpret_cast<float*>(s.v));
}

template <typename T, Kv KV, int D>
cudaError_t attend_cached_instance(const Problem& p, const WorkingSets& w, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(w.splits), static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(p.nb));
  constexpr size_t bytes = sizeof(CachedShared<T, D>);
  const unsigned threads = (w.fills ? kFetchingWarps : kCachedWarps) * 32;
  if (p.group > 8) return launch(attend_cached_kernel<T, KV, D, true>, grid, threads, bytes, stream, p, w);
  return launch(attend_cached_kernel<T, KV, D, false>, grid, threads, bytes, stream, p, w);
}

}  // namespace bough::cuda
