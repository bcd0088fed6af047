// Images of a block's pooled query rows: what the kernels of scan_rows multiply keys by.
//
// An image is 64 rows as wgmma reads a K-major B operand with 128-byte swizzle: slabs of 64 k, in a slab each row's 128 bytes, whose
// 16-byte pieces are permuted by row % 8. k is permuted so that 16 bytes of a key are one lane's part of two A operands: element 32 i + 8 q
// + 4 e + 2 h + x of a row stands at k = 32 i + 16 e + 8 h + 2 q + x. A block and KV head have images [row groups][sides]. Their rows are
// (pooled row, head of the group); those behind the last repeat it.
#pragma once

#include "base/host_device.h"
#include "cuda/prim/convert.cuh"
#include "cuda/prim/launch.cuh"
#include "cuda/view.cuh"
#include "steps/scan_positions.h"

namespace bough::cuda {

inline constexpr int kBlockRowsMost = 64;
inline constexpr int kImageRows = 64;
inline constexpr int kSlabBytes = kImageRows * 128;
inline constexpr int kImageThreads = 256;
inline constexpr int64_t kImageScratch = 128 << 20;  // bytes of images at a time, of at least four blocks

constexpr int image_bytes_of(int d) { return (d + 63) / 64 * kSlabBytes; }

// Images of some blocks at a time: [blocks][KV heads][row groups][sides].
struct ImageShape {
  int first = 0;
  int blocks = 0;
  int groups = 1;  // row groups of a block at most
  int sides = 1;   // 2: left keys meet other images than right ones
};

// INVARIANT: a block with more than one row lies within kBlockRowsMost positions aligned to as many, and strides divide that.
inline int image_groups(const Problem& p, int stage) {
  const int pooled = p.pool == Pool::all ? kBlockRowsMost : (kBlockRowsMost + p.stages.stride[stage] - 1) / p.stages.stride[stage];
  return (pooled * p.group + kImageRows - 1) / kImageRows;
}

BOUGH_HD inline bool scan_turns(const Problem& p) { return p.angles.pairs > 0 && !p.as_given; }
inline bool scan_turns_keys(const Problem& p) { return scan_turns(p) && p.scan != Scan::relative && p.scan != Scan::infllm; }

// Only descents compare a left key with a right one.
inline int scan_sides(const Problem& p, int stage) {
  return scan_turns(p) && p.scan == Scan::relative && p.tree.branches == 0 && p.stages.piece[stage] == 0 ? 2 : 1;
}

// Blocks whose images are held at a time, and the bytes of one block at most.
inline int64_t block_image_bytes(const Problem& p, int stage) {
  return static_cast<int64_t>(p.kv_heads) * image_groups(p, stage) * (p.scan == Scan::relative && !p.as_given ? 2 : 1) *
         image_bytes_of(p.d);
}
inline int image_blocks(const Problem& p, int stage) {
  const int64_t blocks = kImageScratch / block_image_bytes(p, stage) / 4 * 4;
  return static_cast<int>(blocks < 4 ? 4 : blocks);
}

// Of the blocks from `first` on.
inline ImageShape image_shape(const Problem& p, int stage, int first) {
  const int blocks = image_blocks(p, stage), left = p.nb - first;
  return {first, blocks < left ? blocks : left, image_groups(p, stage), scan_sides(p, stage)};
}

// What a stage, or a tree, asks of one block and KV head; count == 0: nothing. Of a tree `count` is the most halves there are.
struct RowsTask {
  BlockInfo block;
  StageView candidates;
  int count = 0;
  int rows = 0;  // of its images
};

__device__ __forceinline__ int pooling_step(const Problem& p, int stage) { return p.pool == Pool::all ? 1 : p.stages.stride[stage]; }

__device__ __forceinline__ RowsTask rows_task(const Problem& p, int stage, int block, int head) {
  RowsTask task;
  if (block >= p.nb) return task;
  const BlockInfo b = block_at(p, block);
  if (b.rows == 0 || b.renewal != Renewal::search || b.first > stage) return task;
  task.block = b;
  int count = 2 * p.tree.branches;
  if (count == 0) {
    if (b.rows == 1) return task;  // scan_row's
    task.candidates = stage_view(p, b, owner_of(p, block), stage, head);
    count = task.candidates.count();
    if (count <= p.stages.keep[stage]) return task;
  }
  const int step = pooling_step(p, stage);
  task.count = count;
  task.rows = ((b.r0 + b.rows - 1) / step - b.r0 / step + 1) * p.group;
  return task;
}

// Adds eight elements of `count` rows, `stride` elements apart.
template <typename T>
__device__ __forceinline__ void sum_rows(const T* x, int count, int64_t stride, float (&sum)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum[i] = 0;
  for (int r = 0; r < count; ++r) {
    const uint4 v = load16(x + r * stride);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 u = unpack<T>(words[i]);
      sum[2 * i] += u.x;
      sum[2 * i + 1] += u.y;
    }
  }
}

// As turn_eight, before rounding. What turns is multiplied by `again` too.
__device__ __forceinline__ void turn_floats(const Angles& a, int position, int e, const float (&x)[8], const float (&partner)[8],
                                            float again, float (&y)[8]) {
  const bool turns = e < 2 * a.pairs;
  const EightAngles by = eight_angles(a, position, e);
  const float sign = e < a.pairs ? -1.0F : 1.0F;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float4 c = by.c[i / 2];
    y[i] = x[i];
    y[i + 1] = x[i + 1];
    if (!turns) continue;
    if (a.layout == RopeLayout::interleaved) {
      const float2 r = i % 4 == 0 ? float2{c.x, c.y} : float2{c.z, c.w};
      y[i] = (x[i] * r.x - x[i + 1] * r.y) * again;
      y[i + 1] = (x[i + 1] * r.x + x[i] * r.y) * again;
    } else {
      y[i] = (x[i] * c.x + sign * partner[i] * c.y) * again;
      y[i + 1] = (x[i + 1] * c.z + sign * partner[i + 1] * c.w) * again;
    }
  }
}

// Word w of quad lane q becomes word q of quad lane w.
__device__ __forceinline__ uint4 transpose_quad(uint4 x) {
  const bool odd = (threadIdx.x & 1) != 0, high = (threadIdx.x & 2) != 0;
  const uint32_t a = __shfl_xor_sync(~0u, odd ? x.x : x.y, 1), b = __shfl_xor_sync(~0u, odd ? x.z : x.w, 1);
  x = odd ? uint4{a, x.y, b, x.w} : uint4{x.x, a, x.z, b};
  const uint32_t c = __shfl_xor_sync(~0u, high ? x.x : x.z, 2), d = __shfl_xor_sync(~0u, high ? x.y : x.w, 2);
  return high ? uint4{c, d, x.z, x.w} : uint4{x.x, x.y, c, d};
}

// Grid (blocks, KV heads, row groups).
template <typename T, int D>
__global__ void __launch_bounds__(kImageThreads)
    scan_images_kernel(const __grid_constant__ Problem p, int stage, ImageShape shape, unsigned char* images) {
  constexpr int pieces = image_bytes_of(D) / (kImageRows * 16);
  static_assert(kImageRows * pieces % kImageThreads == 0 && kImageThreads % pieces == 0);
  begin();
  const int head = blockIdx.y, group = blockIdx.z;
  const RowsTask task = rows_task(p, stage, shape.first + blockIdx.x, head);
  if (group * kImageRows >= task.rows) return;
  const BlockInfo& b = task.block;
  const int step = pooling_step(p, stage), e = threadIdx.x % pieces * 8;
  const QueryBlock block{b.seq, b.row, b.rows, b.r0};
  const ScanPositions positions(p.scan, block, task.count, p.scan_window, p.trained_context);
  const bool turns = scan_turns(p);
  const float again = positions.turns_keys() ? 1.0F : p.angles.magnitude;
  unsigned char* image =
      images + ((static_cast<int64_t>(blockIdx.x) * p.kv_heads + head) * shape.groups + group) * shape.sides * image_bytes_of(D);
  for (int r = threadIdx.x / pieces; r < kImageRows; r += kImageThreads / pieces) {
    const int row = min(group * kImageRows + r, task.rows - 1), cell = b.r0 / step + row / p.group;
    const int end = min(b.r0 + b.rows, (cell + 1) * step);
    const int from = p.pool == Pool::mean ? max(b.r0, cell * step) : end - 1;
    const T* q = static_cast<const T*>(p.q) + (b.row + from - b.r0) * p.q_row + (head * p.group + row % p.group) * p.q_head;
    const float weight = p.scale / static_cast<float>(end - from);
    float own[8], partner[8];
    if (e < D) {
      sum_rows(q + e, end - from, p.q_row, own);
      sum_rows(q + (turns ? partner_of(p.angles, e) : e), end - from, p.q_row, partner);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      own[i] = e < D ? own[i] * weight : 0.0F;
      partner[i] = e < D ? partner[i] * weight : 0.0F;
    }
    for (int side = 0; side < shape.sides; ++side) {
      float y[8];
      if (turns) {
        const int position = static_cast<int>(positions.query(from)) + (shape.sides == 2 && side == 0 ? 1 : 0);
        turn_floats(p.angles, position, e, own, partner, again, y);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) y[i] = own[i];
      }
      const uint4 words = transpose_quad({pack<T>(y[0], y[1]), pack<T>(y[2], y[3]), pack<T>(y[4], y[5]), pack<T>(y[6], y[7])});
      const int piece = e / 8;
      unsigned char* to = image + side * image_bytes_of(D) + piece / 8 * kSlabBytes + r * 128 + ((piece ^ r) & 7) * 16;
      *reinterpret_cast<uint4*>(to) = words;
    }
  }
}

template <typename T, int D>
cudaError_t write_images(const Problem& p, int stage, ImageShape shape, void* images, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(shape.groups));
  return launch(scan_images_kernel<T, D>, grid, kImageThreads, 0, stream, p, stage, shape, static_cast<unsigned char*>(images));
}

}  // namespace bough::cuda
