// scan_row: scores of the candidates of blocks with one row.
//
// Keys are gathered from memory straight into the A operand of products of one warp, 16 at a time; the query heads are columns, of the left
// and the right side next to each other, so that each key is scored from both sides. Where candidates are few a warp takes two of one KV
// head, eight rows each: a step serves two rounds of the descent (two keys of the first, four of the second) and the last one all the
// rounds of the eight keys or fewer that are left; the descent itself is a few exchanges between lanes. Where they are many, so that memory
// and not waiting decides, it takes eight: a step is one round. Pieces need no waiting: a warp goes through eight of two candidates at a
// time, and the next ones are on their way before these are multiplied.
#pragma once

#include "cuda/instance.cuh"
#include "cuda/prim/launch.cuh"
#include "cuda/prim/mma.cuh"
#include "cuda/prim/reduce.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"
#include "steps/scan_positions.h"

namespace bough::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kByPieces = 16;  // candidates of a warp at most where pieces are scored

// How a block of threads shares the work: `heads` KV heads, for each `groups` warps, one with `each` candidates.
struct ScanRowShape {
  int heads = 1;
  int groups = 1;
  int each = 2;  // 2 or 8; of pieces 2 to kByPieces, even

  BOUGH_HD int candidates() const { return each * groups; }
};

// Whether the keys of a scan are turned, and whether its two sides see them from different positions.
__device__ __host__ __forceinline__ bool turns_keys(const Problem& p) {
  return p.angles.pairs > 0 && !p.as_given && p.scan != Scan::relative && p.scan != Scan::infllm;
}
__device__ __forceinline__ bool two_sided(const Problem& p) { return p.angles.pairs > 0 && !p.as_given && p.scan == Scan::relative; }

// p.turned of blocks with one row, for all stages or, where keys turn and positions depend on the candidates, for one: query rows scaled
// and turned; of a two-sided scan the left side's stand at one position more. Keys that are not turned lack the magnitude, which such rows
// have twice.
template <typename T, int D>
__global__ void __launch_bounds__(kRowThreads) turn_queries_kernel(Problem p, int stage) {
  constexpr int pieces = D / 8, at_once = kRowThreads / pieces;
  begin();
  const BlockInfo b = block_at(p, blockIdx.x);
  const bool turned = p.angles.pairs > 0 && !p.as_given, keys_turn = turns_keys(p);
  if (b.rows != 1 || b.renewal != Renewal::search || (keys_turn && b.first > stage)) return;
  const int e = threadIdx.x % pieces * 8, side = blockIdx.y;
  if (threadIdx.x >= at_once * pieces) return;
  int position = p.scan_window + (two_sided(p) && side == 0 ? 1 : 0);
  if (keys_turn) {
    const int count = stage_view(p, b, owner_of(p, blockIdx.x), stage, 0).count();
    position = static_cast<int>(
        ScanPositions(p.scan, QueryBlock{b.seq, b.row, b.rows, b.r0}, count, p.scan_window, p.trained_context).query(b.r0));
  }
  const EightAngles by = turned ? eight_angles(p.angles, position, e) : EightAngles{};
  const bool again = turned && !keys_turn && e < 2 * p.angles.pairs;
  const float scale = again ? p.scale * p.angles.magnitude : p.scale;
  T* out = static_cast<T*>(p.turned) + (static_cast<int64_t>(blockIdx.x) * 2 + side) * p.heads * D + e;
  for (int row = threadIdx.x / pieces; row < p.heads; row += at_once) {
    const T* q = static_cast<const T*>(p.q) + b.row * p.q_row + row * p.q_head;
    const uint4 own = *reinterpret_cast<const uint4*>(q + e);
    const uint4 partner = turned ? *reinterpret_cast<const uint4*>(q + partner_of(p.angles, e)) : own;
    *reinterpret_cast<uint4*>(out + row * D) = turn_eight<T>(turned ? p.angles : Angles{}, by, e, own, partner, scale);
  }
}

// The search of one warp. TILES: column tiles of a product. 1: columns 0-3 left, 4-7 right, a group of at most 4. 2, 4: tiles of 8 heads,
// the left side's first.
template <typename T, Kv KV, int D, int TILES, bool TURN>
struct RowScan {
  static constexpr int kPieces = D / 32;

  const Problem& p;
  const ScanPositions* positions;  // of keys that are turned
  int seq;
  int head;
  int64_t base;                          // of the sequence and head in the cache
  int shift;                             // logarithm of the keys that a row of the cache stands for
  const T* rows;                         // of the head's queries on the left
  int64_t to_right;                      // from there to those on the right
  uint4 held[TILES == 1 ? kPieces : 1];  // B where one tile is all

  struct Key {
    uint4 x[kPieces];  // elements [32 i + 8 quad, + 8)
    float scale;
  };

  // `index`: the candidate that the key belongs to; `summary`: from there, which holds it.
  __device__ __forceinline__ Key load(int token, int index, bool summary = false) const {
    const int quad = threadIdx.x % 4;
    const Cache& c = p.cache;
    const int page = page_of(c, seq, token);
    const int64_t row = summary ? summary_row(c, seq, page, token, head)
                                : base + static_cast<int64_t>(page) * c.k.strides.page +
                                      static_cast<int64_t>(token & ((1 << c.page_shift) - 1)) * c.k.strides.token;
    Key key;
    key.scale = 1.0F;
    if (KV != Kv::same) key.scale = summary ? summary_scale(c, seq, page, token, head) : scale_of(c, c.k, seq, token, head);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) key.x[i] = load_eight<T, KV>(p.cache.k.data, row + i * 32 + quad * 8);
    if constexpr (TURN) turn(key, row, static_cast<int>(positions->key(middle_token(token, shift), index)));
    return key;
  }
  __device__ __forceinline__ void turn(Key& key, int64_t row, int position) const {
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int e = i * 32 + quad * 8;
      const uint4 partner = load_eight<T, KV>(p.cache.k.data, row + partner_of(p.angles, e));
      key.x[i] = turn_eight<T>(p.angles, position, e, key.x[i], partner, key.scale);
    }
    key.scale = 1.0F;
  }

  // B of a tile: this lane's column.
  __device__ __forceinline__ const T* column(int tile) const {
    const int quad = threadIdx.x % 4, n = threadIdx.x % 32 / 4;
    const int side = TILES == 1 ? n / 4 : tile / (TILES == 1 ? 1 : TILES / 2);
    const int g = TILES == 1 ? n % 4 : tile % (TILES == 1 ? 1 : TILES / 2) * 8 + n;
    return rows + side * to_right + min(g, p.group - 1) * D + quad * 8;
  }

  // best[side][c]: the best product over heads of this lane's key of candidate c (0: a product's rows 0-7, 1: rows 8-15) with the queries
  // of a side, in all four lanes of the quad.
  __device__ __forceinline__ void products(const Key& key0, const Key& key1, float best[2][2]) const {
    best[0][0] = best[0][1] = best[1][0] = best[1][1] = -INFINITY;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      const T* q = column(tile);
      float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const uint4 y = TILES == 1 ? held[TILES == 1 ? i : 0] : *reinterpret_cast<const uint4*>(q + i * 32);
        mma16816<T>(even, key0.x[i].x, key1.x[i].x, key0.x[i].y, key1.x[i].y, y.x, y.y);
        mma16816<T>(odd, key0.x[i].z, key1.x[i].z, key0.x[i].w, key1.x[i].w, y.z, y.w);
      }
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float most = fmaxf(even[2 * c] + odd[2 * c], even[2 * c + 1] + odd[2 * c + 1]);
        const int side = TILES == 1 ? 0 : tile / (TILES == 1 ? 1 : TILES / 2);
        best[side][c] = fmaxf(best[side][c], most);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float scale = c == 0 ? key0.scale : key1.scale;
      if constexpr (TILES == 1) {  // lanes 0, 1 of a quad have left columns, 2, 3 right ones
        const float most = fmaxf(best[0][c], __shfl_xor_sync(~0u, best[0][c], 1)) * scale, other = __shfl_xor_sync(~0u, most, 2);
        const bool on_left = threadIdx.x % 4 < 2;
        best[0][c] = on_left ? most : other;
        best[1][c] = on_left ? other : most;
      } else {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          float most = fmaxf(best[side][c], __shfl_xor_sync(~0u, best[side][c], 1));
          most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
          best[side][c] = most * scale;
        }
      }
    }
  }

  // Eight rows of two candidates.
  struct Rows {
    int first = 0;  // of the candidates
    int piece = 0;
    Key key[2];
  };
  __device__ __forceinline__ void fetch(const StageView& view, int count, int pieces, Rows& rows) const {
    const int piece = min(rows.piece + static_cast<int>(threadIdx.x % 32 / 4), pieces - 1);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int index = min(rows.first + c, count - 1);
      rows.key[c] = load((view.start(index) >> shift) + piece, index);
    }
  }

  // The scores of candidates [from, end) by `pieces` rows each. REQUIRES: from < end, end - from <= kByPieces.
  __device__ __forceinline__ void by_pieces(const StageView& view, int pieces, int from, int end, uint32_t* scores) const {
    float score[2] = {-INFINITY, -INFINITY};
    Rows next{from, 0, {}};
    fetch(view, end, pieces, next);
    while (next.first < end) {
      const Rows now = next;
      next.piece += 8;
      const bool last = next.piece >= pieces;
      if (last) next = {now.first + 2, 0, {}};
      if (next.first < end) fetch(view, end, pieces, next);
      float best[2][2];
      products(now.key[0], now.key[1], best);
#pragma unroll
      for (int c = 0; c < 2; ++c) score[c] = fmaxf(score[c], best[1][c]);
      if (!last) continue;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2) score[c] = fmaxf(score[c], __shfl_xor_sync(~0u, score[c], apart));
        if (threadIdx.x % 32 == 0) scores[now.first - from + c] = ordered(score[c]);
        score[c] = -INFINITY;
      }
    }
  }

  // One of the rounds of eight candidates, n >= 4; known[side]: of the key that was better.
  __device__ __forceinline__ void round(int n, int index, bool summary, int& l, float& score, float (&known)[2]) const {
    const Key key0 = load(l + n / 4, index, summary), key1 = load(l + n / 2 + n / 4, index, summary);
    float best[2][2];
    products(key0, key1, best);
    const bool goes_left = best[0][0] > best[1][1];
    if (!goes_left) l += n / 2;
    known[0] = goes_left ? best[0][0] : best[0][1];
    known[1] = goes_left ? best[1][0] : best[1][1];
    score = fmaxf(score, fmaxf(best[0][0], best[1][1]));
  }

  // `left` rounds of eight candidates, this lane's [l, l + n), n >= 4: left keys in rows 0-7, right ones in rows 8-15. The last two that
  // there can be ask for one key more: the other one was probed in the round before, and each key's products with both sides are there.
  __device__ __forceinline__ void rounds(int n, int left, int index, int l, float& score) const {
    float known[2] = {-INFINITY, -INFINITY};  // of key l + 1, from either side
    for (; n >= p.cache.summary_span && left > 0; n /= 2, --left) round(n, index, true, l, score, known);
    for (; n >= 4 && left > 0; n /= 2, --left) round(n, index, false, l, score, known);
    if (left == 0) return;
    const Key key = load(l, index);
    float best[2][2];
    products(key, key, best);
    score = fmaxf(score, fmaxf(best[0][0], known[1]));
    if (left > 1) score = fmaxf(score, best[0][0] > known[1] ? best[1][0] : known[0]);
  }

  // Two rounds of [l, l + n), n >= 16, or with `one` the first of them, whose keys alone are read then. Slots: 0, 1 the first round's left
  // and right; 2, 3 and 4, 5 the second's of either half.
  __device__ __forceinline__ void two_rounds(int n, bool one, const int index[2], int l[2], float score[2]) const {
    const int slot = min(static_cast<int>(threadIdx.x % 32 / 4), one ? 1 : 5);
    const int offset = slot < 2 ? n / 4 + slot * (n / 2) : (slot - 2) / 2 * (n / 2) + n / 8 + slot % 2 * (n / 4);
    const bool summary = (slot < 2 ? n : n / 2) >= p.cache.summary_span;
    const Key key0 = load(l[0] + offset, index[0], summary), key1 = load(l[1] + offset, index[1], summary);
    float best[2][2];
    products(key0, key1, best);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float a = __shfl_sync(~0u, best[0][c], 0), z = __shfl_sync(~0u, best[1][c], 4);
      const float a0 = __shfl_sync(~0u, best[0][c], 8), z0 = __shfl_sync(~0u, best[1][c], 12);
      const float a1 = __shfl_sync(~0u, best[0][c], 16), z1 = __shfl_sync(~0u, best[1][c], 20);
      const bool goes_left = a > z;
      const float next_a = goes_left ? a0 : a1, next_z = goes_left ? z0 : z1;
      l[c] += (goes_left ? 0 : n / 2) + (next_a > next_z ? 0 : n / 4);
      score[c] = fmaxf(score[c], one ? fmaxf(a, z) : fmaxf(fmaxf(a, z), fmaxf(next_a, next_z)));
    }
  }

  // `left` rounds of [l, l + n), n <= 8.
  __device__ __forceinline__ void last_rounds(int n, int left, const int index[2], const int l[2], float score[2]) const {
    const int slot = min(static_cast<int>(threadIdx.x % 32 / 4), n - 1);
    const Key key0 = load(l[0] + slot, index[0]), key1 = load(l[1] + slot, index[1]);
    float best[2][2];
    products(key0, key1, best);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      int from = 0, to = n;
#pragma unroll
      for (int length = 8; length >= 1; length /= 2) {
        if (length > n || length << left <= n) continue;
        const int middle = (from + to) / 2;
        const float a = __shfl_sync(~0u, best[0][c], (from + middle) / 2 * 4), z = __shfl_sync(~0u, best[1][c], (middle + to) / 2 * 4);
        if (a > z)
          to = middle;
        else
          from = middle;
        score[c] = fmaxf(score[c], fmaxf(a, z));
      }
    }
  }
};

template <typename T, Kv KV, int D, int TILES, bool TURN, int EACH>
__global__ void __launch_bounds__(kRowThreads, TILES > 1 || TURN || D > 128 ? 1
                                               : EACH == kByPieces          ? 2
                                                                            : 3) scan_row_kernel(Problem p, int stage, ScanRowShape shape) {
  __shared__ uint32_t best[kRowThreads / 32][EACH];
  __shared__ alignas(ScanPositions) unsigned char shared_positions[sizeof(ScanPositions)];
  const int lane = threadIdx.x, group = threadIdx.z, warp = group * shape.heads + threadIdx.y;
  const int first_head = blockIdx.z * shape.heads, heads = min(shape.heads, p.kv_heads - first_head);
  const int own = min(static_cast<int>(threadIdx.y), heads - 1), head = first_head + own;
  begin();
  const BlockInfo b = block_at(p, blockIdx.y);
  if (b.rows != 1 || b.renewal != Renewal::search || b.first > stage) return;
  const StageView view = stage_view(p, b, owner_of(p, blockIdx.y), stage, head);
  const int count = view.count(), from = blockIdx.x * shape.candidates();
  if (count <= p.stages.row_keep[stage] || from >= count) return;
  const auto* positions = reinterpret_cast<const ScanPositions*>(shared_positions);
  if constexpr (TURN) {
    if (lane == 0 && warp == 0) {
      *reinterpret_cast<ScanPositions*>(shared_positions) =
          ScanPositions(p.scan, QueryBlock{b.seq, b.row, b.rows, b.r0}, count, p.scan_window, p.trained_context);
    }
    __syncthreads();
  }
  const int64_t base = b.seq * p.cache.k.sequence + static_cast<int64_t>(head) * p.cache.k.strides.head;
  const T* rows = static_cast<const T*>(p.turned) + (static_cast<int64_t>(blockIdx.y) * 2 * p.heads + head * p.group) * D;
  RowScan<T, KV, D, TILES, TURN> scan{
      p, positions, b.seq, head, base, p.stages.piece_shift[stage], rows, static_cast<int64_t>(p.heads) * D};
  if constexpr (TILES == 1) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) scan.held[i] = *reinterpret_cast<const uint4*>(scan.column(0) + i * 32);
  }
  uint32_t* scores = p.scores + (static_cast<int64_t>(blockIdx.y) * p.list_heads + (p.list_heads == 1 ? 0 : head)) * p.score_capacity;
  const int each = EACH == kByPieces ? shape.each : EACH, j = from + group * each;
  if constexpr (EACH == kByPieces) {
    if (j < count) scan.by_pieces(view, view.chunk() >> scan.shift, j, min(j + each, count), best[warp]);
  } else if constexpr (EACH == 2) {
    const int index[2] = {min(j, count - 1), min(j + 1, count - 1)};
    int l[2] = {view.start(index[0]), view.start(index[1])};
    float score[2] = {-INFINITY, -INFINITY};
    int n = view.chunk();
    int left = p.stages.rounds[stage];
    for (; n >= 16 && left > 0; n /= 4, left -= 2) scan.two_rounds(n, left == 1, index, l, score);
    if (left > 0) scan.last_rounds(n, left, index, l, score);
    if (lane < 2) best[warp][lane] = ordered(lane == 0 ? score[0] : score[1]);
  } else {
    const int index = min(j + lane / 4, count - 1);
    float score = -INFINITY;
    scan.rounds(view.chunk(), p.stages.rounds[stage], index, view.start(index), score);
    if (lane % 4 == 0) best[warp][lane / 4] = ordered(score);
  }
  if (p.list_heads > 1) {
    __syncwarp();
    if (lane < each && static_cast<int>(threadIdx.y) < heads && j + lane < count) scores[j + lane] = best[warp][lane];
    return;
  }
  __syncthreads();
  for (int i = warp * 32 + lane; i < shape.candidates() && from + i < count; i += kRowThreads) {
    uint32_t most = 0;
    for (int h = 0; h < heads; ++h) most = max(most, best[i / each * shape.heads + h][i % each]);
    if (gridDim.z == 1)
      scores[from + i] = most;
    else
      atomicMax(scores + from + i, most);
  }
}

template <typename T, Kv KV, int D>
cudaError_t scan_row_instance(const Problem& p, int stage, bool first, cudaStream_t stream) {
  constexpr int64_t kMany = 4096;  // candidates of all KV heads: from here on eight a warp; of pieces, warps
  const bool turns = turns_keys(p);
  if (first || turns) {
    const cudaError_t error = launch(turn_queries_kernel<T, D>, dim3(static_cast<unsigned>(p.nb), 2), kRowThreads, 0, stream, p, stage);
    if (error != cudaSuccess) return error;
  }
  ScanRowShape shape;
  shape.heads = p.kv_heads < kRowThreads / 32 ? p.kv_heads : kRowThreads / 32;
  shape.groups = kRowThreads / 32 / shape.heads;
  const int most = p.candidates[stage], parts = (p.kv_heads + shape.heads - 1) / shape.heads;
  const bool pieces = p.stages.piece[stage] > 0;
  const int64_t all = static_cast<int64_t>(most) * p.nb * p.kv_heads;
  if (pieces) {
    while (shape.each < kByPieces && all / shape.each > kMany) shape.each *= 2;
  } else if (!turns && p.stages.chunk[stage] >= 4 && all >= kMany) {
    shape.each = 8;
  }
  const dim3 grid(static_cast<unsigned>((most + shape.candidates() - 1) / shape.candidates()), static_cast<unsigned>(p.nb),
                  static_cast<unsigned>(parts));
  const dim3 threads(32, static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.groups));
  const auto go = [&](auto kernel) { return launch(kernel, grid, threads, 0, stream, p, stage, shape); };
  const auto tiles = [&](auto count) {
    constexpr int TILES = decltype(count)::value;
    if (pieces)
      return turns ? go(scan_row_kernel<T, KV, D, TILES, true, kByPieces>) : go(scan_row_kernel<T, KV, D, TILES, false, kByPieces>);
    if (turns) return go(scan_row_kernel<T, KV, D, TILES, true, 2>);
    return shape.each == 8 ? go(scan_row_kernel<T, KV, D, TILES, false, 8>) : go(scan_row_kernel<T, KV, D, TILES, false, 2>);
  };
  if (p.group <= 4) return tiles(std::integral_constant<int, 1>{});
  if (p.group <= 8) return tiles(std::integral_constant<int, 2>{});
  return tiles(std::integral_constant<int, 4>{});
}

}  // namespace bough::cuda
