// tree: HiP's search (steps/tree.h says what it selects). Rounds of two kernels: tree_keep chooses among the halves that were scored,
// halves what it keeps, and writes the selection when all are single key blocks; tree_score multiplies the keys that speak for each half by
// the images of the query rows.
#pragma once

#include <bit>

#include "cuda/scan_rows.cuh"
#include "cuda/steps.h"

namespace bough::cuda {

// tree_keep of the blocks of `shape`. Round 0 lays out the first branches.
cudaError_t tree_keep(const Problem& p, ImageShape shape, int round, cudaStream_t stream);

// Where a list's halves of a round lie in the scratch of Problem::tree.
__device__ __forceinline__ Branch* tree_halves(const Problem& p, int64_t list, int round) {
  return p.tree.halves + (list * 2 + round % 2) * 2 * p.tree.branches;
}

// Grid (blocks, then KV heads; ranges of halves), as scan_rows_kernel.
template <typename T, Kv KV, int D, bool TURN>
__global__ void __launch_bounds__(kScanWarps * 32, 2)
    tree_score_kernel(const __grid_constant__ Problem p, int round, ImageShape shape, const unsigned char* images) {
  using Scorer = WarpScorer<T, KV, D, TURN>;
  constexpr int bytes = image_bytes_of(D), run = kScanWarps * 8 * Scorer::kKeys;
  extern __shared__ __align__(128) unsigned char scan_shared[];
  begin();
  const int place = blockIdx.x % shape.blocks, head = blockIdx.x / shape.blocks, block = shape.first + place;
  const RowsTask task = rows_task(p, 0, block, head);
  if (task.count == 0) return;
  const int64_t list = list_of(p, block, head);
  const int count = p.tree.live[list], first = blockIdx.y * run;
  if (first >= count) return;
  const Branch* halves = tree_halves(p, list, round);
  const BlockInfo& b = task.block;
  const int groups = (task.rows + kImageRows - 1) / kImageRows;
  const bool stay = shape.groups * bytes <= kResidentBytes;
  SharedImages shared(images + (static_cast<int64_t>(place) * p.kv_heads + head) * shape.groups * bytes, scan_shared, 1, groups, bytes,
                      stay);
  const KeyRows<KV> keys(p.cache, b.seq, head);
  const QueryBlock query{b.seq, b.row, b.rows, b.r0};
  const ScanPositions positions(p.scan, query, task.count, p.scan_window, p.trained_context);
  Scorer scorer{p.angles, positions, keys, shared, 1, task.rows, 0, 0, {}};
  for (int from = first; from < count; from += gridDim.y * run) {
    const int start = from + threadIdx.x / 32 * 8 * Scorer::kKeys, j = start + Scorer::own();
    if (stay && start >= count) continue;
    scorer.candidate = min(j, count - 1);
    const auto speaker = static_cast<int>(representative_of(halves[scorer.candidate], p.tree.rep));
    const int token = p.sinks + (speaker << p.stages.shift[0]);
    float best = -INFINITY;
#pragma unroll 1
    for (int i = 0; i < p.stages.chunk[0]; i += p.tree.key_stride) {
      uint4 key[Scorer::kKeys][Scorer::kPieces];
      scorer.load(token + i, false, key);
      best = fmaxf(best, scorer.multiply(key, 0) * keys.scale_of(scorer.held, token + i, false));
    }
    if (threadIdx.x % 32 < 8 * Scorer::kKeys && j < count) put_score(p, block, head, j, best);
  }
  shared.finish();
}

template <typename T, Kv KV, int D, bool TURN>
cudaError_t tree_score(const Problem& p, int round, ImageShape shape, const void* images, cudaStream_t stream) {
  return launch_warps<D, TURN>(tree_score_kernel<T, KV, D, TURN>, p, 2 * p.tree.branches, round, shape, images, stream);
}

template <typename T, Kv KV, int D>
cudaError_t tree_instance(const Problem& p, void* images, cudaStream_t stream) {
  // The longest branch there can be, and how often it is halved.
  const int rounds = std::bit_width(static_cast<unsigned>(2 * (p.candidates[0] / p.tree.branches + 1)));
  for (int first = 0; first < p.nb; first += image_blocks(p, 0)) {
    const ImageShape shape = image_shape(p, 0, first);
    cudaError_t error = write_images<T, D>(p, 0, shape, images, stream);
    for (int round = 0; round <= rounds && error == cudaSuccess; ++round) {
      error = tree_keep(p, shape, round, stream);
      if (error != cudaSuccess || round == rounds) continue;
      error = scan_turns_keys(p) ? tree_score<T, KV, D, true>(p, round, shape, images, stream)
                                 : tree_score<T, KV, D, false>(p, round, shape, images, stream);
    }
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace bough::cuda
