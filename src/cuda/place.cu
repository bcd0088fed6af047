// place: query blocks and what each of them does, from lengths on the device.
#include "cuda/prim/launch.cuh"
#include "cuda/prim/reduce.cuh"
#include "cuda/prim/search.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"

namespace bough::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kBlockRows = 64;

__global__ void __launch_bounds__(kThreads) place_prefill(Problem p, PlaceArgs a) {
  __shared__ int first[kThreads + 1];
  __shared__ int sums[32];
  const int t = threadIdx.x;
  begin();
  int count = 0;
  if (t < a.sequences) {
    const int rows = a.query_start[t + 1] - a.query_start[t], from = p.placement.lengths[t] - rows;
    const int single = min(a.tail, rows), shared = rows - single;
    count = single + (shared > 0 ? (from + shared - 1) / kBlockRows - from / kBlockRows + 1 : 0);
  }
  int total;
  first[t] = sum_before(count, sums, &total);
  if (t == 0) first[kThreads] = total;
  __syncthreads();
  for (int i = t; i < a.room; i += kThreads) {
    BlockInfo b;
    if (i < total) {
      const int seq = last_at_most(first, a.sequences, i);
      const int at = a.query_start[seq], rows = a.query_start[seq + 1] - at, from = p.placement.lengths[seq] - rows;
      const int shared = rows - min(a.tail, rows);
      const int blocks = shared > 0 ? (from + shared - 1) / kBlockRows - from / kBlockRows + 1 : 0;
      const int j = i - first[seq];
      int begin_row, end_row;
      if (j < blocks) {
        const int grid = (from / kBlockRows + j) * kBlockRows;
        begin_row = max(grid, from) - from;
        end_row = min(grid + kBlockRows - from, shared);
      } else {
        begin_row = shared + j - blocks;
        end_row = begin_row + 1;
      }
      b = block_of(p, seq, at + begin_row, end_row - begin_row, from + begin_row);
    }
    a.blocks[i] = b;
    if (b.renewal != Renewal::search) p.lists.meta[p.stages.count][i] = Meta{};
  }
}

__global__ void __launch_bounds__(128) place_decode(Problem p, PlaceArgs a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  begin();
  if (i < p.nb) a.blocks[i] = block_at(p, i);
}

}  // namespace

cudaError_t place(const Problem& p, const PlaceArgs& a, cudaStream_t stream) {
  if (a.query_start == nullptr) return launch(place_decode, dim3((p.nb + 127) / 128), 128, 0, stream, p, a);
  return launch(place_prefill, dim3(1), kThreads, 0, stream, p, a);
}

}  // namespace bough::cuda
