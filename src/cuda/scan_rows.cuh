// scan_rows, portable: a warp takes 16 or 32 candidates of one KV head. The keys that it probes go from memory straight into B operands of
// matrix products, A operands come from images in shared memory.
#pragma once

#include "cuda/prim/mma.cuh"
#include "cuda/scan_rows_descent.cuh"

namespace bough::cuda {

inline constexpr int kScanWarps = 8;
inline constexpr int kResidentBytes = 64 * 1024;  // images up to this stay in shared memory, others pass through two slots
template <int D, bool TURN>
inline constexpr int kScanKeys = (D <= 128 ? 4 : 2) / (TURN ? 2 : 1);  // candidates of a warp, in eights

// The images of one block and head. Those that do not stay come round in the order of [side][row group], and every thread of the block asks
// for each in that order.
class SharedImages {
 public:
  // REQUIRES: all threads of the block.
  __device__ __forceinline__ SharedImages(const unsigned char* images, unsigned char* shared, int sides, int groups, int bytes, bool stay)
      : images_(images), shared_(shared_address(shared)), sides_(sides), groups_(groups), bytes_(bytes), stay_(stay) {
    if (!stay) {
      fetch(0, 0);
      return;
    }
    for (int i = 0; i < sides * groups; ++i) fetch(i, i);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
  }

  // Address of an image, until the next one is asked for.
  __device__ __forceinline__ uint32_t open(int side, int group) {
    if (stay_) return shared_ + (side * groups_ + group) * bytes_;
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    const uint32_t at = shared_ + slot_ * bytes_;
    slot_ ^= 1;
    const int next = side * groups_ + group + 1;
    fetch(next == sides_ * groups_ ? 0 : next, slot_);
    return at;
  }
  __device__ __forceinline__ void finish() const { asm volatile("cp.async.wait_all;" ::: "memory"); }

 private:
  __device__ __forceinline__ void fetch(int index, int slot) const {
    const unsigned char* from = images_ + (index % groups_ * sides_ + index / groups_) * bytes_;
    for (int i = threadIdx.x * 16; i < bytes_; i += blockDim.x * 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_ + slot * bytes_ + i), "l"(from + i) : "memory");
    }
  }

  const unsigned char* images_;
  uint32_t shared_;
  int sides_;
  int groups_;
  int bytes_;
  bool stay_;
  int slot_ = 0;
};

// This lane's part of a key, turned.
template <typename T, Kv KV, int D>
__device__ __forceinline__ void turn_key(const Angles& a, int position, const unsigned char* data, int64_t row, uint4 (&x)[D / 32]) {
  constexpr int pieces = D / 32;
  uint4 y[pieces];
#pragma unroll
  for (int i = 0; i < pieces; ++i) {
    const int e = i * 32 + threadIdx.x % 4 * 8;
    uint4 partner = x[i];
    if (a.layout == RopeLayout::halves && e < 2 * a.pairs) {
      if (pieces % 2 == 0 && a.pairs == D / 2) {
        partner = x[(i + pieces / 2) % pieces];
      } else {
        partner = load_eight<T, KV>(data, row + partner_of(a, e));
      }
    }
    y[i] = turn_eight<T>(a, position, e, x[i], partner);
  }
#pragma unroll
  for (int i = 0; i < pieces; ++i) x[i] = y[i];
}

// Scores candidates of one warp. Keys are columns of products: lane 4 r + q loads quarter q of every 32 elements of the keys of candidates
// r, r + 8, ..., and what is left of the products of its own candidate comes to it.
template <typename T, Kv KV, int D, bool TURN>
struct WarpScorer {
  static constexpr int kKeys = kScanKeys<D, TURN>;
  static constexpr int kPieces = D / 32;

  const Angles& angles;
  const ScanPositions& positions;
  const KeyRows<KV>& keys;
  SharedImages& images;
  int sides;
  int rows;   // of the images
  int shift;  // logarithm of the keys that a row of the cache stands for
  int candidate;
  HeldPage held;

  // This lane's own candidate among the 8 * kKeys of its warp.
  __device__ static __forceinline__ int own() {
    const int row = threadIdx.x % 32 / 4 % (2 * kKeys), quad = threadIdx.x % 4;
    return row / 2 * 8 + quad * 2 + row % 2;
  }
  // The lane whose own candidate is the k-th that this one loads.
  __device__ static __forceinline__ int owner(int k) {
    const int row = threadIdx.x % 32 / 4;
    return (2 * k + row % 2) * 4 + row / 2;
  }

  // `summary`: from there.
  __device__ __forceinline__ void load(int token, bool summary, uint4 (&x)[kKeys][kPieces]) {
    const int64_t own_row = keys.row(held, token, summary);
    const int position = TURN ? static_cast<int>(positions.key(middle_token(token, shift), candidate)) : 0;
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const int64_t row = __shfl_sync(~0u, own_row, owner(k));
#pragma unroll
      for (int i = 0; i < kPieces; ++i) x[k][i] = load_eight<T, KV>(keys.data, row + i * 32 + threadIdx.x % 4 * 8);
    }
    if constexpr (TURN) {
#pragma unroll
      for (int k = 0; k < kKeys; ++k) {
        const int64_t row = __shfl_sync(~0u, own_row, owner(k));
        turn_key<T, KV, D>(angles, __shfl_sync(~0u, position, owner(k)), keys.data, row, x[k]);
      }
    }
  }

  // The best product of this lane's candidate with the rows of one side.
  __device__ __forceinline__ float multiply(const uint4 (&x)[kKeys][kPieces], int side) {
    const int lane = threadIdx.x % 32;
    float most[2 * kKeys];
#pragma unroll
    for (int k = 0; k < 2 * kKeys; ++k) most[k] = -INFINITY;
    for (int first = 0; first < rows; first += kImageRows) {
      const uint32_t row = images.open(side, first / kImageRows) + lane % 16 * 128;
#pragma unroll kKeys < 4 ? 2 : 1
      for (int n = 0; n < min(kImageRows, rows - first); n += 16) {
        float acc[kKeys][4] = {};
#pragma unroll
        for (int i = 0; i < 2 * kPieces; ++i) {
          uint32_t a[4];
          load_matrix4(a, row + i / 4 * kSlabBytes + n * 128 + ((i % 4 * 2 + lane / 16) ^ (lane % 8)) * 16);
#pragma unroll
          for (int k = 0; k < kKeys; ++k) {
            const uint4 b = x[k][i / 2];
            mma16816<T>(acc[k], a[0], a[1], a[2], a[3], i % 2 == 0 ? b.x : b.z, i % 2 == 0 ? b.y : b.w);
          }
        }
#pragma unroll
        for (int k = 0; k < kKeys; ++k) {
          most[2 * k] = fmaxf(most[2 * k], fmaxf(acc[k][0], acc[k][2]));
          most[2 * k + 1] = fmaxf(most[2 * k + 1], fmaxf(acc[k][1], acc[k][3]));
        }
      }
    }
    return greatest<2 * kKeys, 4, 32>(most);
  }

  __device__ __forceinline__ void score(int l, const Round& round, Best& x, Best& y) {
#pragma unroll 1
    for (int right = 0; right < (round.single ? 1 : 2); ++right) {
      const int token = l + (right == 0 ? round.left : round.right);
      uint4 key[kKeys][kPieces];
      load(token, round.summary, key);
      const float scale = keys.scale_of(held, token, round.summary);
#pragma unroll 1
      for (int side = right == 0 ? 0 : round.right_begin; side < (right == 0 ? round.left_end : sides); ++side) {
        const float best = multiply(key, side) * scale;
        if (right == 0) {
          x.put(side, sides, best);
        } else {
          y.put(side, sides, best);
        }
      }
    }
  }
};

// Grid (blocks, then KV heads; ranges of candidates). Neighbouring blocks of threads probe the same pages.
template <typename T, Kv KV, int D, bool TURN>
__global__ void __launch_bounds__(kScanWarps * 32, 2)
    scan_rows_kernel(const __grid_constant__ Problem p, int stage, ImageShape shape, const unsigned char* images) {
  using Scorer = WarpScorer<T, KV, D, TURN>;
  constexpr int bytes = image_bytes_of(D), run = kScanWarps * 8 * Scorer::kKeys;
  extern __shared__ __align__(128) unsigned char scan_shared[];
  begin();
  const int place = blockIdx.x % shape.blocks, head = blockIdx.x / shape.blocks, block = shape.first + place;
  const RowsTask task = rows_task(p, stage, block, head);
  const int first = blockIdx.y * run;
  if (first >= task.count) return;
  const BlockInfo& b = task.block;
  const int rows = min(task.rows, shape.groups * kImageRows), groups = (rows + kImageRows - 1) / kImageRows;
  const bool stay = shape.groups * shape.sides * bytes <= kResidentBytes;
  SharedImages shared(images + (static_cast<int64_t>(place) * p.kv_heads + head) * shape.groups * shape.sides * bytes, scan_shared,
                      shape.sides, groups, bytes, stay);
  const KeyRows<KV> keys(p.cache, b.seq, head);
  const QueryBlock query{b.seq, b.row, b.rows, b.r0};
  const ScanPositions positions(p.scan, query, task.count, p.scan_window, p.trained_context);
  Scorer scorer{p.angles, positions, keys, shared, shape.sides, rows, p.stages.piece_shift[stage], 0, {}};
  const bool writes = threadIdx.x % 32 < 8 * Scorer::kKeys;
  for (int from = first; from < task.count; from += gridDim.y * run) {
    const int start = from + threadIdx.x / 32 * 8 * Scorer::kKeys, j = start + Scorer::own();
    if (stay && start >= task.count) continue;
    scorer.candidate = min(j, task.count - 1);
    const float score = score_of(p.stages, stage, task.candidates.start(scorer.candidate), scorer);
    if (writes && j < task.count) put_score(p, block, head, j, score);
  }
  shared.finish();
}

// Launches a kernel of WarpScorers over at most `candidates` of each block; `step` is its stage or round.
template <int D, bool TURN, typename Kernel>
cudaError_t launch_warps(Kernel kernel, const Problem& p, int candidates, int step, ImageShape shape, const void* images,
                         cudaStream_t stream) {
  constexpr int bytes = image_bytes_of(D), run = kScanWarps * 8 * kScanKeys<D, TURN>;
  const int all = shape.groups * shape.sides * bytes, columns = shape.blocks * p.kv_heads;
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(scan_ranges(candidates, run, columns, 4)));
  return launch(kernel, grid, kScanWarps * 32, static_cast<size_t>(all <= kResidentBytes ? all : 2 * bytes), stream, p, step, shape,
                static_cast<const unsigned char*>(images));
}

template <typename T, Kv KV, int D>
cudaError_t scan_rows_portable(const Problem& p, int stage, ImageShape shape, const void* images, cudaStream_t stream) {
  const int most = p.candidates[stage];
  if (scan_turns_keys(p)) return launch_warps<D, true>(scan_rows_kernel<T, KV, D, true>, p, most, stage, shape, images, stream);
  return launch_warps<D, false>(scan_rows_kernel<T, KV, D, false>, p, most, stage, shape, images, stream);
}

}  // namespace bough::cuda
