// The best of a list of scores, by a radix selection of one block of threads.
#pragma once

#include "cuda/prim/reduce.cuh"

namespace bough::cuda {

inline constexpr int kBins = 2048;

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

struct CutShared {
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

  __device__ bool ties(uint32_t key) const { return key >= low && key <= high; }
  // Is a key taken that `before` ties come before?
  __device__ bool takes(uint32_t key, int before) const { return key > high || (ties(key) && before < want); }
};

// The cut that takes `want` keys. Keys are compared less the least one, so that a pass's bins spread over the range that there is; passes
// end as soon as a whole bin is taken.
template <int THREADS, int PER>
__device__ Cut find_cut(const Keys<THREADS, PER>& keys, CutShared& s, int want) {
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
      if (cut.ties(key)) atomicAdd(&s.bins[(key - cut.low) >> shift], 1);
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

}  // namespace bough::cuda
