// attend on devices with warpgroup products, head dims 64 and 128, keys and values of q's type: a block of three warpgroups takes one query
// block of up to 64 rows and up to four heads of a KV head's group. The first warpgroup brings tiles of keys and values from the pages into
// a ring in shared memory and turns the keys there; the other two attend, each for its own heads, and take turns at the tensor cores:
// while one multiplies, the other makes exponentials.
#pragma once

#include "cuda/attend_common.cuh"
#include "cuda/prim/launch.cuh"

namespace bough::cuda {

template <int D>
struct alignas(1024) TileShared {
  static constexpr int kHeads = 4;
  static constexpr int kKeys = D == 64 ? 128 : 80;  // of a tile
  static constexpr int kSlots = 3;
  static constexpr int kPanels = D / 64;

  struct alignas(16) Place {
    const char* k;  // the first element of a key's row
    const char* v;
  };

  // Panels of 64 elements, as attend_ptx.cuh says.
  unsigned char q[kHeads][kPanels][64 * 128];
  unsigned char k[kSlots][kPanels][kKeys * 128];
  unsigned char v[kSlots][kPanels][kKeys * 128];
  // Of four tiles in a row, since one producer may still turn the keys of tile n when another notes the places of tile n + 3.
  Place places[4][kKeys];
  int32_t positions[4][kKeys];
  AttendBlock block;
  uint64_t full[kSlots];
  uint64_t empty[kSlots];
};

inline constexpr int kTileThreads = 384;
// A thread's registers, of 504 for one of each warpgroup. The consumers' are just enough for results, scores and weights at once.
template <int D>
inline constexpr int kProducerRegisters = D == 64 ? 88 : 72;
template <int D>
inline constexpr int kConsumerRegisters = D == 64 ? 208 : 216;
// Meetings: 1 and 2 of the consumers' turns, 3 of the producers, 4 and 5 of each consumer warpgroup.
inline constexpr int kTurnMeeting = 1;
inline constexpr int kProducerMeeting = 3;
inline constexpr int kConsumerMeeting = 4;

// Byte of a panel where piece `piece` of 16 bytes of row `row` lies.
__device__ __forceinline__ int piece_at(int row, int piece) { return row * 128 + (piece ^ (row & 7)) * 16; }

// The tiles that some row of a block sees.
struct TileRange {
  int first;
  int count;
};
template <int D>
__device__ __forceinline__ TileRange tiles_of(const Problem& p, const AttendBlock& block) {
  constexpr int keys = TileShared<D>::kKeys;
  const int first = p.sliding > 0 ? max(0, block.own(0) - p.sliding + 1) / keys : 0;
  return {first, max(0, (block.size + keys - 1) / keys - first)};
}

// Turns the keys of a slot where they lie. A thread turns the same item of every so many keys. `turn` is that of its first key.
template <typename T, int D>
__device__ __forceinline__ void turn_tile(const Problem& p, bool runs_on, int thread, const Turn& step, Turn& turn,
                                          const int32_t* positions, unsigned char (*panels)[TileShared<D>::kKeys * 128]) {
  constexpr int items = D / 16, keys = 128 / items;
  const int item = thread % items, first = thread / items;
  if (!turns(p.angles, item)) return;
  const Sixteen at = sixteen_of(p.angles, item);
  unsigned char* px = panels[at.x / 64] + piece_at(first, at.x / 8 % 8);
  unsigned char* py = panels[at.y / 64] + piece_at(first, at.y / 8 % 8);
  uint4 x = *reinterpret_cast<const uint4*>(px), y = *reinterpret_cast<const uint4*>(py);
#pragma unroll 1
  for (int key = first;;) {
    const bool more = key + keys < TileShared<D>::kKeys;
    uint4 a = x, b = y;
    if (more) {
      x = *reinterpret_cast<const uint4*>(px + keys * 128);
      y = *reinterpret_cast<const uint4*>(py + keys * 128);
    }
    turn_sixteen<T>(p.angles.layout, turn, 1.0F, a, b);
    *reinterpret_cast<uint4*>(px) = a;
    *reinterpret_cast<uint4*>(py) = b;
    if (!more) return;
    key += keys;
    px += keys * 128;
    py += keys * 128;
    if (runs_on) {
      turn.advance(step);
    } else {
      turn.load(p.angles, positions[key], item);
    }
  }
}

// The first warpgroup. Tile n is copied in the round before the one that turns it, so that its slot fills while consumers have another.
template <typename T, int D>
__device__ __forceinline__ void produce(const Problem& p, TileRange tiles, TileShared<D>& s) {
  using Shared = TileShared<D>;
  constexpr int keys = Shared::kKeys, slots = Shared::kSlots, items = D / 16;
  if (tiles.count == 0) return;
  const AttendBlock& block = s.block;
  const int thread = threadIdx.x, piece = thread % 8, first = thread / 8;
  const bool turning = p.angles.pairs > 0, runs_on = block.runs_on(p);
  Turn step, turn;
  if (turning) step.load_distance(p.angles, 128 / items, thread % items);
  KeyFinder finder(p, block, tiles.first * keys + thread, keys);
  const auto note = [&](int n) {
    if (thread < keys) {
      s.places[n % 4][thread] = {reinterpret_cast<const char*>(static_cast<const T*>(p.cache.k.data) + finder.row(p.cache.k)),
                                 reinterpret_cast<const char*>(static_cast<const T*>(p.cache.v.data) + finder.row(p.cache.v))};
      s.positions[n % 4][thread] = finder.position().at;
    }
  };
  note(0);
  finder.advance();
  meet(kProducerMeeting, 128);
  const uint32_t place = shared_address(s.k) + piece_at(first, piece);  // values lie behind all keys
  int slot = 0, phase = 0;                                              // of tile n
  for (int n = 0; n <= tiles.count; ++n) {
    const int next = slot + 1 == slots ? 0 : slot + 1, before = slot == 0 ? slots - 1 : slot - 1;
    if (n < tiles.count) {
      if (phase > 0) wait_phase(shared_address(&s.empty[slot]), phase - 1);
      const uint32_t to = place + slot * sizeof(s.k[0]);
#pragma unroll
      for (int key = 0; key < keys; key += 16) {
        const typename Shared::Place from = s.places[n % 4][first + key];
#pragma unroll
        for (int panel = 0; panel < Shared::kPanels; ++panel) {
          copy16(to + key * 128 + panel * sizeof(s.k[0][0]), from.k + piece * 16 + panel * 128);
          copy16(to + key * 128 + panel * sizeof(s.k[0][0]) + sizeof(s.k), from.v + piece * 16 + panel * 128);
        }
      }
    }
    commit_copies();
    const int32_t* positions = s.positions[(n + 3) % 4];  // of the tile before
    if (n > 0 && turning) turn.load(p.angles, positions[thread / items], thread % items);
    note(n + 1);
    wait_copies<1>();
    meet(kProducerMeeting, 128);  // all copies of the tile before are there, and the places of the next
    finder.advance();
    if (n > 0) {
      if (turning) turn_tile<T, D>(p, runs_on, thread, step, turn, positions, s.k[before]);
      publish_to_async();
      __syncwarp();
      if (thread % 32 == 0) arrive_at(shared_address(&s.full[before]));
    }
    slot = next;
    phase += next == 0;
  }
}

// Who multiplies next; without effect where the two have different numbers of heads.
struct Turns {
  bool on;
  int mine;  // 0 begins

  __device__ __forceinline__ void take() const {
    if (on) meet(kTurnMeeting + mine, 256);
  }
  __device__ __forceinline__ void give() const {
    if (on) meet_later(kTurnMeeting + 1 - mine, 256);
  }
};

// q and k: operands along_sum, v: across_sum.
template <typename T, int D, int N>
__device__ __forceinline__ void multiply_keys(uint32_t q, uint32_t k, float (&scores)[N]) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    multiply_shared<T, N * 2>(scores, q + (i / 4 * (64 * 128) + i % 4 * 32) / 16, k + (i / 4 * (N * 2 * 128) + i % 4 * 32) / 16, i > 0);
  }
}
template <typename T, int D, int S>
__device__ __forceinline__ void multiply_values(const uint32_t (&weights)[S][4], uint32_t v, float (&out)[D / 2]) {
#pragma unroll
  for (int i = 0; i < S; ++i) multiply_registers<T, D>(out, weights[i], v + i * 16 * 128 / 16);
}

// Results of one head, by way of its queries' place; each warp its own rows.
template <typename T, int D>
__device__ __forceinline__ void write_head(const Problem& p, const AttendBlock& block, int head, const SoftRows& rows,
                                           const float (&out)[D / 2], unsigned char (*panels)[64 * 128]) {
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 % 4 * 16;
  const float sink = p.sink_logits != nullptr ? p.sink_logits[head] : -kInfinity;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int row = first + lane / 4 + e * 8;
    const RowEnd end = end_row(rows, e, sink);
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      *reinterpret_cast<uint32_t*>(panels[i / 8] + piece_at(row, i % 8) + lane % 4 * 4) =
          pack<T>(out[i * 4 + e * 2] * end.factor, out[i * 4 + e * 2 + 1] * end.factor);
    }
    if (p.lse != nullptr && lane % 4 == 0 && row < block.info.rows)
      p.lse[static_cast<int64_t>(block.info.row + row) * p.heads + head] = end.lse;
  }
  __syncwarp();
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    const int row = first + i / (D / 8), piece = i % (D / 8);
    if (row >= block.info.rows) break;
    T* o = static_cast<T*>(p.o) + (block.info.row + row) * p.o_row + head * p.o_head + piece * 8;
    *reinterpret_cast<uint4*>(o) = *reinterpret_cast<const uint4*>(panels[piece / 8] + piece_at(row, piece % 8));
  }
}

// Queries of heads [head, head + kHeads) by a warpgroup. Those beyond the last row: anything.
template <typename T, int D, int kHeads>
__device__ __forceinline__ void load_queries(const Problem& p, const AttendBlock& block, int head, unsigned char (*q)[D / 64][64 * 128]) {
  constexpr int items = D / 16, step = 128 / items, passes = 64 / step;
  const int item = threadIdx.x % items, first = threadIdx.x % 128 / items;
  const Sixteen at = sixteen_of(p.angles, item);
  uint4 x[passes][kHeads], y[passes][kHeads];
  Turn turn[passes];
#pragma unroll
  for (int i = 0; i < passes; ++i) {
    const int row = min(first + i * step, block.info.rows - 1);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) load_query<T>(p, block, row, head + h, at, x[i][h], y[i][h]);
    turn[i].load(p.angles, block.query_position(p, row), item);
  }
#pragma unroll
  for (int i = 0; i < passes; ++i) {
    const int row = first + i * step;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      finish_sixteen<T>(p.angles, item, turn[i], p.scale, x[i][h], y[i][h]);
      *reinterpret_cast<uint4*>(q[h][at.x / 64] + piece_at(row, at.x / 8 % 8)) = x[i][h];
      *reinterpret_cast<uint4*>(q[h][at.y / 64] + piece_at(row, at.y / 8 % 8)) = y[i][h];
    }
  }
}

// A warpgroup that attends for heads [head, head + kHeads), whose queries are from place `place` on.
template <typename T, int D, int kHeads>
__device__ __forceinline__ void consume(const Problem& p, TileRange tiles, int head, int place, Turns turns, TileShared<D>& s) {
  using Shared = TileShared<D>;
  constexpr int keys = Shared::kKeys, slots = Shared::kSlots;
  const AttendBlock& block = s.block;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  load_queries<T, D, kHeads>(p, block, head, s.q + place);
  publish_to_async();
  meet(kConsumerMeeting + turns.mine, 128);

  float out[kHeads][D / 2], scores[keys / 2];
  uint32_t weights[keys / 16][4];
  SoftRows rows[kHeads];
#pragma unroll
  for (int x = 0; x < kHeads; ++x) {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out[x][i] = 0;
  }
  const int own[2] = {block.own(row), block.own(row + 8)};
  const uint32_t q = along_sum(shared_address(s.q[place])), k = along_sum(shared_address(s.k));
  const uint32_t v = across_sum(shared_address(s.v), sizeof(s.v[0][0]));
  constexpr uint32_t next_head = sizeof(s.q[0]) / 16, next_slot = sizeof(s.k[0]) / 16;
  if (tiles.count > 0) {
    if (turns.mine == 1) turns.give();
    wait_phase(shared_address(&s.full[0]), 0);
    turns.take();
    open_products();
    multiply_keys<T, D>(q, k, scores);
    close_products();
    turns.give();
    wait_products();
    settle(scores);
  }
  int slot = 0, phase = 0;
  for (int n = 0; n < tiles.count; ++n) {
    const int next = slot + 1 == slots ? 0 : slot + 1;
    const int rank = (tiles.first + n) * keys;
    const bool hidden = rank + keys - 1 > block.own(0) || (p.sliding > 0 && rank <= block.size - 1 - p.sliding);
    const int next_phase = phase + (next == 0);
#pragma unroll
    for (int x = 0; x < kHeads; ++x) {
      const bool last = x + 1 == kHeads, more = !last || n + 1 < tiles.count;  // scores to come; those after the last are of anything
      const int to = last ? next : slot;
      if (p.softcap > 0) cap_scores(scores, p.softcap);
      if (hidden) hide_scores(scores, rank, own, p.sliding);
      weigh_scores<T>(scores, rows[x], out[x], weights);
      if (more) wait_phase(shared_address(&s.full[to]), last ? next_phase : phase);
      turns.take();
      open_products();
      multiply_values<T, D>(weights, v + slot * next_slot, out[x]);
      multiply_keys<T, D>(q + (last ? 0 : x + 1) * next_head, k + to * next_slot, scores);
      close_products();
      if (more || turns.mine == 0) turns.give();
      wait_products();
      settle(scores);
      settle(out[x]);
    }
    if (lane == 0) arrive_at(shared_address(&s.empty[slot]));
    slot = next;
    phase = next_phase;
  }
  meet(kConsumerMeeting + turns.mine, 128);  // nobody reads queries any more
#pragma unroll
  for (int x = 0; x < kHeads; ++x) write_head<T, D>(p, block, head + x, rows[x], out[x], s.q[place + x]);
}

// Grid (query blocks, the last one first; KV heads times parts of the group). Blocks of one row are left to attend_rows.
template <typename T, int D>
__global__ void __launch_bounds__(kTileThreads, 1) attend_sm90_kernel(const __grid_constant__ Problem p, int parts) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char attend_shared[];
  TileShared<D>& s = *reinterpret_cast<TileShared<D>*>(attend_shared + (-shared_address(attend_shared) & 1023));
  begin();
  const int share = (p.group + parts - 1) / parts, first = static_cast<int>(blockIdx.y) % parts * share;
  const int heads = min(share, p.group - first), mine[2] = {(heads + 1) / 2, heads / 2};
  const int warpgroup = __shfl_sync(~0U, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    s.block = attend_block(p, p.nb - 1 - static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y) / parts);
    for (int i = 0; i < TileShared<D>::kSlots; ++i) {
      init_barrier(shared_address(&s.full[i]), 4);                   // producer warps
      init_barrier(shared_address(&s.empty[i]), heads > 1 ? 8 : 4);  // consumer warps
    }
  }
  __syncthreads();
  if (s.block.info.rows <= 1) return;
  const TileRange tiles = tiles_of<D>(p, s.block);
  if (warpgroup == 0) {
    fewer_registers<kProducerRegisters<D>>();
    produce<T, D>(p, tiles, s);
  } else {
    more_registers<kConsumerRegisters<D>>();
    const Turns turns{mine[0] == mine[1], warpgroup - 1};
    const int count = warpgroup == 1 ? mine[0] : mine[1], place = warpgroup == 1 ? 0 : mine[0];
    const int head = s.block.kv_head * p.group + first + place;
    if (count == 2) {
      consume<T, D, 2>(p, tiles, head, place, turns, s);
    } else if (count == 1) {
      consume<T, D, 1>(p, tiles, head, place, turns, s);
    }
  }
#endif
}

template <typename T, int D>
cudaError_t attend_sm90(const Problem& p, cudaStream_t stream) {
  const int parts = (p.group + TileShared<D>::kHeads - 1) / TileShared<D>::kHeads;
  return launch(attend_sm90_kernel<T, D>, dim3(p.nb, p.kv_heads * parts), kTileThreads, sizeof(TileShared<D>) + 1024, stream, p, parts);
}

}  // namespace bough::cuda
