// attend on any device: a block of four warps takes 64 pairs (row, head of the group) of one query block and KV head, a warp sixteen.
#pragma once

#include <type_traits>

#include "cuda/attend_common.cuh"
#include "cuda/prim/launch.cuh"

namespace bough::cuda {

template <typename T, Kv KV, int D, bool MOVES>
struct RowsShared {
  static constexpr int kThreads = 128;
  static constexpr int kRows = 64;
  static constexpr int kKeys = D > 128 ? 32 : 64;              // of a tile
  static constexpr int kStride = D + 8;                        // eight neighbouring rows begin in different groups of banks
  static constexpr int kSixteens = kKeys * D / 16 / kThreads;  // of a tile, a thread's share
  static constexpr int kScales = KV == Kv::same ? 1 : kKeys;

  struct Places {
    longlong2 at[kKeys];  // element 0 of a key's and of a value's row
    KeyPosition<MOVES> position[kKeys];
    float2 scale[kScales];
  };

  alignas(16) T q[kRows][kStride];
  alignas(16) T k[kKeys][kStride];
  alignas(16) T v[kKeys][kStride];
  Places places[2];  // of a tile and the next
  AttendBlock block;
};

// Eight elements as stored.
template <Kv KV>
struct Stored {
  std::conditional_t<KV == Kv::same, uint4, uint2> bits;

  __device__ __forceinline__ void load(const void* data, int64_t at) {
    if constexpr (KV == Kv::same) {
      bits = load16(static_cast<const uint16_t*>(data) + at);
    } else {
      bits = load8(static_cast<const uint8_t*>(data) + at);
    }
  }
  template <typename T>
  __device__ __forceinline__ uint4 widen() const {
    if constexpr (KV == Kv::same) {
      return bits;
    } else if constexpr (KV == Kv::e4m3) {
      return {widen_e4m3<T>(bits.x & 0xffff), widen_e4m3<T>(bits.x >> 16), widen_e4m3<T>(bits.y & 0xffff), widen_e4m3<T>(bits.y >> 16)};
    } else {
      return {widen_i8<T>(bits.x & 0xffff), widen_i8<T>(bits.x >> 16), widen_i8<T>(bits.y & 0xffff), widen_i8<T>(bits.y >> 16)};
    }
  }
};

// A thread's share of a tile of keys or of values, on its way from the cache to shared memory: item item_of(i) of key key_of(i).
template <typename T, Kv KV, int D, bool MOVES>
struct Share {
  using Shared = RowsShared<T, KV, D, MOVES>;
  using Places = typename Shared::Places;
  static constexpr int kItems = D / 16;

  Stored<KV> x[Shared::kSixteens];
  Stored<KV> y[Shared::kSixteens];

  static __device__ __forceinline__ int key_of(int i) { return (i * Shared::kThreads + threadIdx.x) / kItems; }
  static __device__ __forceinline__ int item_of(int i) { return (i * Shared::kThreads + threadIdx.x) % kItems; }

  __device__ __forceinline__ void load_keys(const Problem& p, const Places& places) {
#pragma unroll
    for (int i = 0; i < Shared::kSixteens; ++i) {
      const Sixteen at = sixteen_of(p.angles, item_of(i));
      x[i].load(p.cache.k.data, places.at[key_of(i)].x + at.x);
      y[i].load(p.cache.k.data, places.at[key_of(i)].x + at.y);
    }
  }
  __device__ __forceinline__ void store_keys(const Problem& p, const Places& places, Shared& s) const {
#pragma unroll
    for (int i = 0; i < Shared::kSixteens; ++i) {
      const int key = key_of(i), item = item_of(i);
      const Sixteen at = sixteen_of(p.angles, item);
      uint4 a = x[i].template widen<T>(), b = y[i].template widen<T>();
      const float scale = KV == Kv::same ? 1.0F : places.scale[key].x;
      if (turns(p.angles, item)) {
        Turn turn;
        turn.load(p.angles, places.position[key], item);
        turn_sixteen<T>(p.angles.layout, turn, scale, a, b);
      } else if (KV != Kv::same) {
        a = scale_eight<T>(a, scale);
        b = scale_eight<T>(b, scale);
      }
      *reinterpret_cast<uint4*>(&s.k[key][at.x]) = a;
      *reinterpret_cast<uint4*>(&s.k[key][at.y]) = b;
    }
  }
  // Of a row of values, eight elements in each half.
  __device__ __forceinline__ void load_values(const Problem& p, const Places& places) {
#pragma unroll
    for (int i = 0; i < Shared::kSixteens; ++i) {
      const int key = key_of(i), e = item_of(i) * 8;
      x[i].load(p.cache.v.data, places.at[key].y + e);
      y[i].load(p.cache.v.data, places.at[key].y + e + D / 2);
    }
  }
  __device__ __forceinline__ void store_values(const Places& places, Shared& s) const {
#pragma unroll
    for (int i = 0; i < Shared::kSixteens; ++i) {
      const int key = key_of(i), e = item_of(i) * 8;
      uint4 a = x[i].template widen<T>(), b = y[i].template widen<T>();
      if (KV != Kv::same) {
        a = scale_eight<T>(a, places.scale[key].y);
        b = scale_eight<T>(b, places.scale[key].y);
      }
      *reinterpret_cast<uint4*>(&s.v[key][e]) = a;
      *reinterpret_cast<uint4*>(&s.v[key][e + D / 2]) = b;
    }
  }
};

// The scores of a warp's rows with a tile of keys.
template <typename T, Kv KV, int D, bool MOVES, int N>
__device__ __forceinline__ void score_tile(const RowsShared<T, KV, D, MOVES>& s, float (&scores)[N]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < N; ++i) scores[i] = 0;
#pragma unroll
  for (int e = 0; e < D; e += 16) {
    uint32_t a[4];
    load_matrix4(a, shared_address(&s.q[warp * 16 + lane % 16][e + lane / 16 * 8]));
#pragma unroll
    for (int i = 0; i < N; i += 8) {  // sixteen keys
      uint32_t b[4];
      load_matrix4(b, shared_address(&s.k[i * 2 + lane / 16 * 8 + lane % 8][e + lane / 8 % 2 * 8]));
      mma16816<T>(scores + i, a[0], a[1], a[2], a[3], b[0], b[1]);
      mma16816<T>(scores + i + 4, a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

// Adds a tile's values by their weights.
template <typename T, Kv KV, int D, bool MOVES, int M, int S>
__device__ __forceinline__ void add_values(const RowsShared<T, KV, D, MOVES>& s, const uint32_t (&weights)[S][4], float (&out)[M]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < S; ++step) {
    const uint32_t(&a)[4] = weights[step];
#pragma unroll
    for (int i = 0; i < M; i += 8) {  // sixteen elements
      uint32_t b[4];
      load_matrix4_transposed(b, shared_address(&s.v[step * 16 + lane % 16][i * 2 + lane / 16 * 8]));
      mma16816<T>(out + i, a[0], a[1], a[2], a[3], b[0], b[1]);
      mma16816<T>(out + i + 4, a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

// Pair number i of a query block is row i / group and head i % group of the KV head's group.
template <typename T, int D, int M>
__device__ __forceinline__ void write_rows(const Problem& p, const AttendBlock& block, int first, const SoftRows& rows,
                                           const float (&out)[M]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int pair = first + lane / 4 + e * 8;
    const bool there = pair < block.info.rows * p.group;
    const int64_t row = block.info.row + pair / p.group;
    const int head = block.kv_head * p.group + pair % p.group;
    const RowEnd end = end_row(rows, e, there && p.sink_logits != nullptr ? p.sink_logits[head] : -kInfinity);
    if (!there) continue;
    T* o = static_cast<T*>(p.o) + row * p.o_row + head * p.o_head + lane % 4 * 2;
#pragma unroll
    for (int i = e * 2; i < M; i += 4) *reinterpret_cast<uint32_t*>(o + i / 4 * 8) = pack<T>(out[i] * end.factor, out[i + 1] * end.factor);
    if (p.lse != nullptr && lane % 4 == 0) p.lse[row * p.heads + head] = end.lse;
  }
}

// Pairs [first, first + 64) of a query block.
template <typename T, Kv KV, int D, bool MOVES>
__device__ __forceinline__ void attend_pairs(const Problem& p, int first, RowsShared<T, KV, D, MOVES>& s) {
  using Shared = RowsShared<T, KV, D, MOVES>;
  using Places = typename Shared::Places;
  constexpr int keys = Shared::kKeys;
  const AttendBlock& block = s.block;
  const int thread = threadIdx.x, lane = thread % 32, pairs = block.info.rows * p.group, mine = first + thread / 32 * 16;
  const bool busy = mine < pairs;
  for (int i = thread; i < Shared::kRows * (D / 16); i += Shared::kThreads) {
    const int row = i / (D / 16), item = i % (D / 16), pair = min(first + row, pairs - 1);  // beyond the last one: anything
    const Sixteen at = sixteen_of(p.angles, item);
    uint4 x, y;
    load_query<T>(p, block, pair / p.group, block.kv_head * p.group + pair % p.group, at, x, y);
    Turn turn;
    turn.load(p.angles, block.query_position<MOVES>(p, pair / p.group), item);
    finish_sixteen<T>(p.angles, item, turn, p.scale, x, y);
    *reinterpret_cast<uint4*>(&s.q[row][at.x]) = x;
    *reinterpret_cast<uint4*>(&s.q[row][at.y]) = y;
  }
  SoftRows rows;
  float out[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) out[i] = 0;

  const int lowest = block.own(first / p.group), highest = block.own(min(block.info.rows - 1, (first + Shared::kRows - 1) / p.group));
  const int own[2] = {block.own((mine + lane / 4) / p.group), block.own((mine + lane / 4 + 8) / p.group)};
  const int begin_tile = p.sliding > 0 ? max(0, lowest - p.sliding + 1) / keys : 0, end_tile = highest < 0 ? 0 : highest / keys + 1;
  if (begin_tile < end_tile) {
    KeyFinder finder(p, block, begin_tile * keys + thread % keys, keys);
    float2 scale{1, 1};
    const auto load_scales = [&] {
      if (KV != Kv::same) scale = {finder.scale(p.cache.k), finder.scale(p.cache.v)};
    };
    const auto note = [&](Places& places) {
      if (thread < keys) {
        places.at[thread] = {finder.row(p.cache.k), finder.row(p.cache.v)};
        places.position[thread] = finder.position<MOVES>();
        if (KV != Kv::same) places.scale[thread % Shared::kScales] = scale;
      }
      finder.advance();
    };
    load_scales();
    note(s.places[0]);
    load_scales();
    note(s.places[1]);
    __syncthreads();
    Share<T, KV, D, MOVES> share;
    share.load_keys(p, s.places[0]);
    share.store_keys(p, s.places[0], s);
    __syncthreads();
    for (int tile = begin_tile; tile < end_tile; ++tile) {
      Places& here = s.places[(tile - begin_tile) % 2];
      const Places& next = s.places[(tile - begin_tile + 1) % 2];
      const bool more = tile + 1 < end_tile;
      share.load_values(p, here);
      uint32_t weights[keys / 16][4];
      if (busy) {
        float scores[keys / 2];
        score_tile(s, scores);
        if (p.softcap > 0) cap_scores(scores, p.softcap);
        const int rank = tile * keys;
        if (rank + keys - 1 > lowest || (p.sliding > 0 && rank <= highest - p.sliding)) hide_scores(scores, rank, own, p.sliding);
        weigh_scores<T>(scores, rows, out, weights);
      }
      share.store_values(here, s);
      if (more) share.load_keys(p, next);
      load_scales();
      __syncthreads();  // values are there, keys and `here` are done with
      if (busy) add_values(s, weights, out);
      if (more) share.store_keys(p, next, s);
      note(here);
      __syncthreads();
    }
  }
  write_rows<T, D>(p, block, mine, rows, out);
}

// Grid (tiles of pairs, times query blocks, the last one first; KV heads). `single`: blocks with one row only, in the shadow of a kernel
// that this call queued just before for the others. MOVES: as moves(p.positions) says.
template <typename T, Kv KV, int D, bool MOVES>
__global__ void __launch_bounds__(RowsShared<T, KV, D, MOVES>::kThreads, D > 128 ? 2 : 3)
    attend_rows_kernel(const __grid_constant__ Problem p, int tiles, bool single) {
  extern __shared__ __align__(1024) unsigned char attend_shared[];
  RowsShared<T, KV, D, MOVES>& s = *reinterpret_cast<RowsShared<T, KV, D, MOVES>*>(attend_shared);
  if (!single) begin();
  const int first = static_cast<int>(blockIdx.x) % tiles * RowsShared<T, KV, D, MOVES>::kRows;
  if (threadIdx.x == 0) s.block = attend_block(p, p.nb - 1 - static_cast<int>(blockIdx.x) / tiles, static_cast<int>(blockIdx.y));
  __syncthreads();
  const int rows = s.block.info.rows;
  if (first < rows * p.group && !(single && rows > 1)) attend_pairs(p, first, s);
  if (single) begin();
}

template <typename T, Kv KV, int D, bool MOVES = false>
cudaError_t attend_rows(const Problem& p, bool single, cudaStream_t stream) {
  constexpr int rows = RowsShared<T, KV, D, MOVES>::kRows;
  const bool decode = p.owner != nullptr;  // every block has one row
  const int tiles = ((single || decode ? 1 : rows) * p.group + rows - 1) / rows;
  return launch(attend_rows_kernel<T, KV, D, MOVES>, dim3(p.nb * tiles, p.kv_heads), RowsShared<T, KV, D, MOVES>::kThreads,
                sizeof(RowsShared<T, KV, D, MOVES>), stream, p, tiles, single);
}

}  // namespace bough::cuda
