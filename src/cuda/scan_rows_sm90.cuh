// scan_rows for sm_90a, head dims 64 and 128, keys that are not turned. A warpgroup takes 64 or 128 candidates of one block and KV head;
// the keys that it probes go from memory straight into A operands of wgmma, B operands are images in shared memory. Where images are small
// the warpgroups of a block of threads take neighbouring query blocks, which probe the same first keys: those come from L1.
#pragma once

#include <type_traits>

#include "cuda/scan_rows_descent.cuh"
#include "cuda/scan_rows_wgmma.cuh"

namespace bough::cuda {

inline constexpr int kWarpgroups = 4;
inline constexpr int kSharedImages = 128 * 1024;  // bytes of the images of several query blocks
inline constexpr int kMostImages = 192 * 1024;    // of one: beyond it images pass through slots
inline constexpr int kImageSlots = 10;
inline constexpr int kSlotLag = 4;  // a slot is filled anew when this many images more were used

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Images of one block and head that are in shared memory, [row groups][sides].
struct HeldImages {
  uint32_t shared;
  uint32_t arrived;
  int sides;
  int bytes;

  __device__ __forceinline__ uint32_t open(int side, int group) const {
    wait_phase(arrived, 0);
    return shared + (group * sides + side) * bytes;
  }
  __device__ __forceinline__ void close() const {}
};

// Images that come round in the order of [side][row group], `total` in all. Every warp opens and closes all of them in that order.
struct PassingImages {
  const unsigned char* images;
  uint32_t shared;
  uint32_t full;   // barriers of the slots: 1 arrival and the bytes
  uint32_t empty;  // one arrival of each warp
  int sides;
  int groups;
  int bytes;
  int total;
  int used = 0;
  int slot = 0;
  uint32_t parity = 0;
  int filled = 0;     // what follows is of the thread that fills
  int fill_slot = 0;  // where image `filled` goes
  uint32_t fill_parity = 0;
  int fill_index = 0;

  __device__ __forceinline__ void fill() {
    const unsigned char* from = images + (fill_index % groups * sides + fill_index / groups) * bytes;
    bulk_copy(shared + fill_slot * bytes, from, bytes, full + fill_slot * 8);
    ++filled;
    if (++fill_slot == kImageSlots) {
      fill_slot = 0;
      fill_parity ^= 1;
    }
    if (++fill_index == sides * groups) fill_index = 0;
  }
  __device__ __forceinline__ uint32_t open(int, int) {
    wait_phase(full + slot * 8, parity);
    return shared + slot * bytes;
  }
  __device__ __forceinline__ void close() {
    if (threadIdx.x % 32 == 0) arrive_at(empty + slot * 8);
    if (threadIdx.x == 0 && used >= kSlotLag && filled < total) {
      wait_phase(empty + fill_slot * 8, fill_parity ^ 1);
      fill();
    }
    ++used;
    if (++slot == kImageSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

template <typename T, Kv KV>
struct StoredEight {
  using Type = uint2;
};
template <typename T>
struct StoredEight<T, Kv::same> {
  using Type = uint4;
};

// Eight stored elements, through L1.
__device__ __forceinline__ void load_shared_line(const unsigned char* from, uint4& x) {
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from));
}
__device__ __forceinline__ void load_shared_line(const unsigned char* from, uint2& x) {
  asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(x.x), "=r"(x.y) : "l"(from));
}
// The same, widened. `zero` is 0, but not to the compiler: what was loaded must not share registers with the A operands that it is moved
// to, or the moves would come before the loads that follow.
template <typename T, Kv KV>
__device__ __forceinline__ uint4 operand(uint4 x, uint32_t zero) {
  return {x.x ^ zero, x.y ^ zero, x.z ^ zero, x.w ^ zero};
}
template <typename T, Kv KV>
__device__ __forceinline__ uint4 operand(uint2 x, uint32_t) {
  return widen_eight<T, KV>(x);
}

// Scores candidates of one warpgroup. Keys are rows of products: lane 4 r + q loads quarter q of every 32 elements of the keys of
// candidates 16 warp + r, 8 behind it, and 64 behind both. Its own candidate is one of those.
template <typename T, Kv KV, int D, typename Images>
struct WarpgroupScorer {
  static constexpr int kKeys = 256 / D;
  static constexpr int kPieces = D / 32;
  using Stored = typename StoredEight<T, KV>::Type;

  const KeyRows<KV>& keys;
  Images& images;
  int sides;
  int groups;
  HeldPage held;

  // This lane's own candidate among the 32 * kKeys of its warpgroup.
  __device__ static __forceinline__ int own() {
    const int k = threadIdx.x % kKeys, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return k / 2 * 64 + warp * 16 + k % 2 * 8 + lane / 4;
  }

  __device__ __forceinline__ void load(int64_t own_row, Stored (&x)[kKeys][kPieces]) const {
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const int64_t row = __shfl_sync(~0u, own_row, k, 4) + threadIdx.x % 4 * 8;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) load_shared_line(keys.data + (row + i * 32) * kElementBytes<KV>, x[k][i]);
    }
  }

  // The best product of this lane's candidate with the rows of one side.
  __device__ __forceinline__ float multiply(const Stored (&x)[kKeys][kPieces], int side) {
    uint4 a[kKeys][kPieces];
    float most[kKeys];
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      most[k] = -INFINITY;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) a[k][i] = operand<T, KV>(x[k][i], static_cast<uint32_t>(sides) >> 8);
    }
#pragma unroll 1
    for (int g = 0; g < groups; ++g) {
      const uint64_t columns = swizzled_columns(images.open(side, g));
#pragma unroll
      for (int k = 0; k < kKeys; k += 2) {
        float c[32];
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          const uint4 low = a[k][i], high = a[k + 1][i];
          const uint64_t at = columns + (i / 2 * kSlabBytes + i % 2 * 64) / 16;
          if (i == 0) {
            wgmma64<T, false>(c, low.x, high.x, low.y, high.y, at);
          } else {
            wgmma64<T, true>(c, low.x, high.x, low.y, high.y, at);
          }
          wgmma64<T, true>(c, low.z, high.z, low.w, high.w, at + 2);
        }
        wgmma_end();
        if (k + 2 == kKeys) images.close();
#pragma unroll
        for (int i = 0; i < 32; i += 4) {
          most[k] = fmaxf(most[k], fmaxf(c[i], c[i + 1]));
          most[k + 1] = fmaxf(most[k + 1], fmaxf(c[i + 2], c[i + 3]));
        }
      }
    }
    return greatest<kKeys, 1, 4>(most);
  }

  // All keys of the round are on their way before the first is waited for; a single one comes twice.
  __device__ __forceinline__ void score(int l, const Round& round, Best& best_left, Best& best_right) {
    const int left = l + round.left, right = l + round.right;
    const int64_t left_row = keys.row(held, left, round.summary);
    const float left_scale = keys.scale_of(held, left, round.summary);
    const int64_t right_row = keys.row(held, right, round.summary);
    const float right_scale = keys.scale_of(held, right, round.summary);
    Stored x[kKeys][kPieces], z[kKeys][kPieces];
    load(left_row, x);
    load(right_row, z);
    int side = 0;
#pragma unroll 1
    do {
      best_left.put(side, sides, multiply(x, side) * left_scale);
    } while (++side < round.left_end);
    if (round.single) return;
    side = round.right_begin;
#pragma unroll 1
    do {
      best_right.put(side, sides, multiply(z, side) * right_scale);
    } while (++side < sides);
  }
};

#endif

// How the warpgroups of a block of threads share `blocks` query blocks, whose images pass or stay.
struct WarpgroupShape {
  int blocks = 1;
  bool pass = false;
  bool together = false;  // warpgroups begin each run of candidates at the same time
};

// Grid (groups of query blocks, then KV heads; ranges of candidates).
template <typename T, Kv KV, int D, bool PASS>
__global__ void __launch_bounds__(kWarpgroups * 128, 1)
    scan_rows_sm90_kernel(const __grid_constant__ Problem p, int stage, ImageShape shape, WarpgroupShape split,
                          const unsigned char* images) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Images = std::conditional_t<PASS, PassingImages, HeldImages>;
  using Scorer = WarpgroupScorer<T, KV, D, Images>;
  constexpr int bytes = image_bytes_of(D), run = 32 * Scorer::kKeys;
  extern __shared__ __align__(128) unsigned char scan_shared[];
  __shared__ __align__(8) uint64_t barriers[2 * kImageSlots];
  __shared__ int counts[kWarpgroups];
  begin();
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0), columns = (shape.blocks + split.blocks - 1) / split.blocks;
  const int own = warpgroup % split.blocks, head = blockIdx.x / columns;
  const int place = blockIdx.x % columns * split.blocks + own, block = shape.first + place;
  const RowsTask task = rows_task(p, stage, block, head);
  const int step = kWarpgroups / split.blocks * run, first = blockIdx.y * step, stride = gridDim.y * step;
  const int groups = (min(task.rows, shape.groups * kImageRows) + kImageRows - 1) / kImageRows;
  const uint32_t shared = (shared_address(scan_shared) + 1023) & ~1023u, bar = shared_address(barriers);
  const unsigned char* from = images + (static_cast<int64_t>(place) * p.kv_heads + head) * shape.groups * shape.sides * bytes;

  Images held;
  if constexpr (PASS) {
    const int runs = (task.count - first + stride - 1) / stride;
    held = {from,        shared, bar,   bar + kImageSlots * 8,
            shape.sides, groups, bytes, runs * groups * products_of(p.stages, stage, shape.sides)};
  } else {
    held = {shared + own * shape.groups * shape.sides * bytes, bar + own * 8, shape.sides, bytes};
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * kImageSlots; ++i) init_barrier(bar + i * 8, PASS && i >= kImageSlots ? kWarpgroups * 4 : 1);
    publish_barriers();
    if constexpr (PASS) {
      written_before();
      while (held.filled < min(kImageSlots, held.total)) held.fill();
    }
  }
  if (threadIdx.x % 128 == 0) counts[warpgroup] = task.count;
  __syncthreads();
  if constexpr (!PASS) {
    if (threadIdx.x % 128 == 0 && warpgroup < split.blocks && first < task.count) {
      written_before();
      bulk_copy(held.shared, from, groups * shape.sides * bytes, held.arrived);
    }
  }
  int end = task.count;
  if (split.together) {
    for (int i = 0; i < kWarpgroups; ++i) end = max(end, counts[i]);
  }

  const KeyRows<KV> keys(p.cache, task.block.seq, head);
  Scorer scorer{keys, held, shape.sides, groups, {}};
  const int candidate = warpgroup / split.blocks * run + Scorer::own();
  for (int at = first; at < end; at += stride) {
    if (split.together) __syncthreads();
    if (at >= task.count) continue;
    const int j = at + candidate;
    const float score = score_of(p.stages, stage, task.candidates.start(min(j, task.count - 1)), scorer);
    if (threadIdx.x % 4 < Scorer::kKeys && j < task.count) put_score(p, block, head, j, score);
  }
#endif
}

template <typename T, Kv KV, int D>
cudaError_t scan_rows_sm90(const Problem& p, int stage, ImageShape shape, const void* images, cudaStream_t stream) {
  constexpr int bytes = image_bytes_of(D), run = 32 * 256 / D;
  const int all = shape.groups * shape.sides * bytes;
  WarpgroupShape split;
  split.pass = all > kMostImages;
  while (split.blocks < kWarpgroups && 2 * split.blocks <= shape.blocks && 2 * split.blocks * all <= kSharedImages) split.blocks *= 2;
  split.together = split.blocks > 1 && stage == 0;
  const int columns = (shape.blocks + split.blocks - 1) / split.blocks * p.kv_heads;
  const int ranges = scan_ranges(p.candidates[stage], kWarpgroups / split.blocks * run, columns, 8);
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(ranges));
  const auto go = [&](auto kernel, int shared) {
    return launch(kernel, grid, kWarpgroups * 128, static_cast<size_t>(shared + 1024), stream, p, stage, shape, split,
                  static_cast<const unsigned char*>(images));
  };
  if (split.pass) return go(scan_rows_sm90_kernel<T, KV, D, true>, kImageSlots * bytes);
  return go(scan_rows_sm90_kernel<T, KV, D, false>, split.blocks * all);
}

}  // namespace bough::cuda
