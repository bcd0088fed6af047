// One warp's share of a decode step's attention: KEYS keys and values in shared memory, the query heads of a group as rows of products.
#pragma once

#include "cuda/prim/mma.cuh"
#include "cuda/working_set.cuh"

namespace bough::cuda {

// The greatest score of a head over warps.
template <int WARPS>
__device__ __forceinline__ float top_of(const float (*m)[16], int g) {
  float top = m[0][g];
#pragma unroll
  for (int i = 1; i < WARPS; ++i) top = fmaxf(top, m[i][g]);
  return top;
}

// ROWS16: groups of more than 8 heads use both halves of a product's 16 rows.
template <typename T, int D, bool ROWS16, int KEYS>
class WarpAttention {
 public:
  __device__ __forceinline__ WarpAttention() {
#pragma unroll
    for (float& m : m_) m = -INFINITY;
  }

  // Products of the group's queries with keys [from, from + KEYS) of the split; those behind the last one are anything.
  __device__ __forceinline__ void score(const T (*q)[D + 8], const T* k, int from) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) x_[n][0] = x_[n][1] = x_[n][2] = x_[n][3] = 0;
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      uint32_t qa[4];
      load_matrix4(qa, shared_address(&q[lane % 16][kk * 16 + lane / 16 * 8]));
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        const int key = from + n * 8 + lane % 8 + lane / 16 * 8;
        uint32_t kb[4];
        load_matrix4(kb, shared_address(k + key * D + place_of<D>(kk * 2 + lane / 8 % 2, key) * 8));
        mma16816<T>(x_[n], qa[0], qa[1], qa[2], qa[3], kb[0], kb[1]);
        mma16816<T>(x_[n + 1], qa[0], qa[1], qa[2], qa[3], kb[2], kb[3]);
      }
    }
  }

  // Scores become weights. Of the keys `mine` are there; those before `below` have left a sliding window.
  __device__ __forceinline__ void weigh(float softcap, int mine, int below) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& y = x_[n][2 * h + e];
          const int key = n * 8 + lane % 4 * 2 + e;
          if (softcap > 0) y = softcap * tanhf(y / softcap);
          if (key >= mine || key < below) y = -INFINITY;
          m_[h] = fmaxf(m_[h], y);
        }
      }
      m_[h] = fmaxf(m_[h], __shfl_xor_sync(~0u, m_[h], 1));
      m_[h] = fmaxf(m_[h], __shfl_xor_sync(~0u, m_[h], 2));
      const float top = m_[h] == -INFINITY ? 0.0F : m_[h];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float u = __expf(x_[n][2 * h] - top), v = __expf(x_[n][2 * h + 1] - top);
        l_[h] += u + v;
        weight_[n][h] = pack<T>(u, v);
      }
      l_[h] += __shfl_xor_sync(~0u, l_[h], 1);
      l_[h] += __shfl_xor_sync(~0u, l_[h], 2);
    }
  }

  // The weighted sum of `mine` values from `from` on. What lies behind them is overwritten: it may be anything, and 0 * NaN is NaN.
  __device__ __forceinline__ void add_values(T* v, int from, int mine) {
    const int lane = threadIdx.x % 32, groups = (mine + 15) / 16;
    if (mine % 16 != 0) {
      for (int i = lane; i < (groups * 16 - mine) * (D / 8); i += 32) {
        *reinterpret_cast<uint4*>(v + (from + mine + i / (D / 8)) * D + i % (D / 8) * 8) = {};
      }
      __syncwarp();
    }
#pragma unroll
    for (int g = 0; g < KEYS / 16; ++g) {
      if (g >= groups) break;
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        const int key = from + g * 16 + lane % 16;
        uint32_t vb[4];
        load_matrix4_transposed(vb, shared_address(v + key * D + place_of<D>(n + lane / 16, key) * 8));
        const uint32_t high0 = ROWS16 ? weight_[2 * g][kHalves - 1] : 0, high1 = ROWS16 ? weight_[2 * g + 1][kHalves - 1] : 0;
        mma16816<T>(acc_[n], weight_[2 * g][0], high0, weight_[2 * g + 1][0], high1, vb[0], vb[1]);
        mma16816<T>(acc_[n + 1], weight_[2 * g][0], high0, weight_[2 * g + 1][0], high1, vb[2], vb[3]);
      }
    }
  }

  // Greatest scores, sums of weights [group] and weighted sums of values [group, D] of the warp.
  __device__ __forceinline__ void leave(int group, float* m, float* l, float* sums) const {
    const int lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int g = row + 8 * h;
      if (lane % 4 == 0) m[g] = m_[h], l[g] = l_[h];
      if (g >= group) continue;
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        *reinterpret_cast<float2*>(sums + g * D + i * 8 + lane % 4 * 2) = {acc_[i][2 * h], acc_[i][2 * h + 1]};
      }
    }
  }

 private:
  static constexpr int kTiles = KEYS / 8, kHalves = ROWS16 ? 2 : 1;

  float m_[kHalves];
  float l_[kHalves] = {};
  float acc_[D / 8][4] = {};
  float x_[kTiles][4];
  uint32_t weight_[kTiles][2];
};

}  // namespace bough::cuda
