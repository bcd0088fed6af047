// select: a radix selection of each list's best candidates by one block of threads.
#include "cuda/prim/launch.cuh"
#include "cuda/prim/reduce.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"

namespace bough::cuda {
namespace {

constexpr int kBins = 2048;

// The scores of one list, which belong to threads in runs. PER > 0: a thread keeps its PER scores in registers; 0: they are read again.
template <int THREADS, int PER>
struct Keys {
  const uint32_t* scores;
  int count;  // candidates from here on are no choice: 0
  int per;
  uint32_t held[PER > 0 ? PER : 1];

  __device__ Keys(const uint32_t* s, int n, int candidates)
      : scores(s), count(n), per(PER > 0 ? PER : (candidates + THREADS - 1) / THREADS) {
    if constexpr (PER > 0) {
#pragma unroll
      for (int i = 0; i < PER; ++i) {
        const int j = threadIdx.x * PER + i;
        held[i] = j < count ? __ldcg(scores + j) : 0;
      }
    }
  }
  template <typename F>
  __device__ void each(const F& f) const {
    if constexpr (PER > 0) {
#pragma unroll
      for (int i = 0; i < PER; ++i) f(threadIdx.x * PER + i, held[i]);
    } else {
      for (int i = 0; i < per; ++i) {
        const int j = threadIdx.x * per + i;
        f(j, j < count ? __ldcg(scores + j) : 0u);
      }
    }
  }
};

struct Shared {
  int bins[kBins];
  int sums[32];
  uint32_t least;
  uint32_t most;
  int bin;
  int want;
  int in_bin;
};

// Keys at or above `low` are taken, except that of those in [low, high] only the first `want` are.
struct Cut {
  uint32_t low;
  uint32_t high;
  int want;
};

// The cut that takes `want` keys. Keys are compared less the least one, so that a pass's bins spread over the range that there is; passes
// end as soon as a whole bin is taken.
template <int THREADS, int PER>
__device__ Cut find_cut(const Keys<THREADS, PER>& keys, Shared& s, int want) {
  constexpr int own = kBins / THREADS;  // bins of a thread, from the top
  const int t = threadIdx.x;
  if (t == 0) s.least = UINT32_MAX, s.most = 0;
  __syncthreads();
  uint32_t least = UINT32_MAX, most = 0;
  keys.each([&](int, uint32_t key) {
    if (key != 0) least = min(least, key), most = max(most, key);
  });
  least = __reduce_min_sync(~0u, least);
  most = __reduce_max_sync(~0u, most);
  if (t % 32 == 0) atomicMin(&s.least, least), atomicMax(&s.most, most);
  for (int i = t; i < kBins; i += THREADS) s.bins[i] = 0;
  __syncthreads();
  least = s.least;
  Cut cut{least, s.most, want};
  int shift = max(0, 32 - __clz(static_cast<int>(s.most - least)) - 11);
  for (;;) {
    keys.each([&](int, uint32_t key) {
      if (key >= cut.low && key <= cut.high) atomicAdd(&s.bins[(key - cut.low) >> shift], 1);
    });
    __syncthreads();
    int held[own], sum = 0;
#pragma unroll
    for (int i = 0; i < own; ++i) {
      held[i] = s.bins[kBins - 1 - (t * own + i)];
      sum += held[i];
    }
    int total;
    int before = sum_before(sum, s.sums, &total);
#pragma unroll
    for (int i = 0; i < own; ++i) {
      s.bins[kBins - 1 - (t * own + i)] = 0;
      if (before < cut.want && before + held[i] >= cut.want) {
        s.bin = kBins - 1 - (t * own + i);
        s.want = cut.want - before;
        s.in_bin = held[i];
      }
      before += held[i];
    }
    __syncthreads();
    cut.low += static_cast<uint32_t>(s.bin) << shift;
    cut.high = min(cut.high, cut.low + ((1u << shift) - 1));
    cut.want = s.want;
    const bool whole = s.in_bin == s.want;
    if (shift == 0 || whole) return cut;
    shift = max(0, shift - 11);
    __syncthreads();
  }
}

// Of what is left below the limit by the list that has least.
__device__ int least_below(const Problem& p, const BlockInfo& b, int owner, int stage, int limit) {
  int least = INT32_MAX;
  for (int h = 0; h < p.list_heads; ++h) least = min(least, stage_view(p, b, owner, stage, h).below(limit));
  return least;
}

template <int THREADS, int PER>
__global__ void __launch_bounds__(THREADS) select_kernel(Problem p, int stage) {
  __shared__ Shared s;
  __shared__ int chosen;
  __shared__ int own;
  const int t = threadIdx.x, block = blockIdx.x, head = blockIdx.y;
  begin();
  const BlockInfo b = block_at(p, block);
  if (b.rows == 0 || b.renewal != Renewal::search || b.first > stage) return;
  const int owner = owner_of(p, block);
  const StageView view = stage_view(p, b, owner, stage, head);
  const bool last = stage + 1 == p.stages.count;
  const int count = view.count(), keep = p.stages.keep[stage];
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
      equal += static_cast<int>(key >= cut.low && key <= cut.high);
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
      const bool tied = key >= cut.low && key <= cut.high;
      if ((key > cut.high || (tied && equal_before < cut.want)) && j < choices) out[at++] = view.start(j);
      equal_before += static_cast<int>(tied);
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
