// select: a radix selection of each list's best candidates by one block of threads.
#include "cuda/prim/launch.cuh"
#include "cuda/select_cut.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"

namespace bough::cuda {
namespace {

// Of what is left below the limit by the list that has least.
__device__ int least_below(const Problem& p, const BlockInfo& b, int owner, int stage, int limit) {
  int least = INT32_MAX;
  for (int h = 0; h < p.list_heads; ++h) least = min(least, stage_view(p, b, owner, stage, h).below(limit));
  return least;
}

template <int THREADS, int PER>
__global__ void __launch_bounds__(THREADS) select_kernel(Problem p, int stage) {
  __shared__ CutShared s;
  __shared__ int chosen;
  __shared__ int own;
  const int t = threadIdx.x, block = blockIdx.x, head = blockIdx.y;
  begin();
  const BlockInfo b = block_at(p, block);
  if (b.rows == 0 || b.renewal != Renewal::search || b.first > stage) return;
  const int owner = owner_of(p, block);
  const StageView view = stage_view(p, b, owner, stage, head);
  const bool last = stage + 1 == p.stages.count;
  const int count = view.count(), keep = p.stages.keep_of(stage, b.rows);
  if (t == 0) {
    own = last ? view.below(b.w0) : count;
    chosen = min(keep, last && p.list_heads > 1 ? least_below(p, b, owner, stage, b.w0) : own);
  }
  __syncthreads();
  const int choices = own, take = chosen;
  uint32_t* scores = p.scores + (static_cast<int64_t>(block) * p.list_heads + head) * p.score_capacity;
  int32_t* out = p.lists.start[stage + 1] + (static_cast<int64_t>(owner) * p.list_heads + head) * p.lists.capacity[stage + 1];
  if (choices <= take) {
    for (int j = t; j < take; j += THREADS) out[j] = view.start(j);
  } else if (take > 0) {
    const Keys<THREADS, PER> keys(scores, choices, count);
    const Cut cut = find_cut(keys, s, take);
    int above = 0, equal = 0;
    keys.each([&](int, uint32_t key) {
      above += static_cast<int>(key > cut.high);
      equal += static_cast<int>(cut.ties(key));
    });
    int total, above_before, equal_before;
    if constexpr (PER > 0) {  // both sums fit into one
      const auto both = static_cast<uint32_t>(sum_before(above + (equal << 16), s.sums, &total));
      above_before = static_cast<int>(both & 0xffff);
      equal_before = static_cast<int>(both >> 16);
    } else {
      above_before = sum_before(above, s.sums, &total);
      equal_before = sum_before(equal, s.sums, &total);
    }
    int at = above_before + min(equal_before, cut.want);
    keys.each([&](int j, uint32_t key) {
      if (cut.takes(key, equal_before) && j < choices) out[at++] = view.start(j);
      equal_before += static_cast<int>(cut.ties(key));
    });
  }
  __syncthreads();
  if (count > keep) {
    for (int j = t; j < count; j += THREADS) scores[j] = 0;
  }
  if (t == 0 && head == 0) {
    p.lists.meta[stage + 1][owner] = {take, view.meta.end + (view.meta.added << view.shift), 0, 0};
    if (stage > 0 && stage == b.first) p.lists.meta[stage][owner].added = view.meta.added;
  }
}

}  // namespace

cudaError_t select(const Problem& p, int stage, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(p.nb), static_cast<unsigned>(p.list_heads));
  const int most = p.candidates[stage];
  if (most <= 512) return launch(select_kernel<256, 2>, grid, 256, 0, stream, p, stage);
  if (most <= 1280) return launch(select_kernel<256, 5>, grid, 256, 0, stream, p, stage);
  if (most <= 2048) return launch(select_kernel<512, 4>, grid, 512, 0, stream, p, stage);
  if (most <= 5120) return launch(select_kernel<1024, 5>, grid, 1024, 0, stream, p, stage);
  if (most <= 16384) return launch(select_kernel<1024, 16>, grid, 1024, 0, stream, p, stage);
  return launch(select_kernel<1024, 0>, grid, 1024, 0, stream, p, stage);
}

}  // namespace bough::cuda
