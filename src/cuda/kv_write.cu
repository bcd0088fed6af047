// kv_write: rows of keys and values to where the cache keeps their tokens, and of keys to the summary. A warp takes one row of one KV head;
// a lane has eight elements.
#include "cuda/instance.cuh"
#include "cuda/prim/launch.cuh"
#include "cuda/prim/search.cuh"
#include "cuda/steps.h"
#include "cuda/view.cuh"

namespace bough::cuda {
namespace {

constexpr int kWarps = 8;

struct Place {
  int seq = -1;  // -1: no row
  int token = 0;
};

__device__ Place place_of(const WriteArgs& a, int row) {
  if (a.query_start == nullptr) return row < a.sequences && a.lengths[row] > 0 ? Place{row, a.lengths[row] - 1} : Place{};
  if (row >= a.query_start[a.sequences]) return {};
  const int seq = last_at_most(a.query_start, a.sequences, row);
  return {seq, a.lengths[seq] - (a.query_start[seq + 1] - row)};
}

template <Kv KV>
__device__ __forceinline__ uint32_t code_of(float x) {
  if constexpr (KV == Kv::e4m3) return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  return static_cast<uint32_t>(__float2int_rn(fminf(127.0F, fmaxf(-127.0F, x)))) & 0xffu;
}

// A row of one KV head in a plane whose pages have 1 << page_shift rows.
struct Row {
  const Plane& plane;
  int page_shift;
  int seq;
  int page;
  int token;
  int head;

  __device__ __forceinline__ int64_t first() const { return row_of(plane, page_shift, seq, page, token, head); }
  // REQUIRES: the plane has scales.
  __device__ __forceinline__ float* scale() const {
    const Steps& s = plane.scale_strides;
    const int within = token & ((1 << page_shift) - 1);
    return const_cast<float*>(plane.scale) + seq * plane.scale_sequence + static_cast<int64_t>(page) * s.page +
           static_cast<int64_t>(within) * s.token + static_cast<int64_t>(head) * s.head;
  }
  __device__ __forceinline__ bool has_own_scale() const { return plane.scale != nullptr && plane.scale_strides.token != 0; }
  template <typename Piece>
  __device__ __forceinline__ void put(int e, Piece x) const {
    constexpr int element_bytes = sizeof(Piece) / 8;
    *reinterpret_cast<Piece*>(static_cast<unsigned char*>(const_cast<void*>(plane.data)) + (first() + e) * element_bytes) = x;
  }
};

// What a row is divided by: the scale that is there, or one of its own, which is written.
template <Kv KV>
__device__ float scale_for(const Row& row, const float (&x)[8]) {
  if (row.plane.scale == nullptr) return 1.0F;
  if (!row.has_own_scale()) return *row.scale();
  float most = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(x[i]));
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, apart));
  const float own = most > 0 ? __fdiv_rn(most, KV == Kv::e4m3 ? 448.0F : 127.0F) : 1.0F;
  if (threadIdx.x % 32 == 0) *row.scale() = own;
  return own;
}

// Grid (rows, KV heads and then K or V, in warps).
template <typename T, Kv KV>
__global__ void __launch_bounds__(kWarps * 32) kv_write_kernel(Problem p, WriteArgs a) {
  const int task = blockIdx.y * kWarps + threadIdx.x / 32, head = task / 2, e = threadIdx.x % 32 * 8;
  begin();
  if (head >= p.kv_heads) return;
  const Place at = place_of(a, blockIdx.x);
  if (at.seq < 0) return;
  const WriteRows& rows = task % 2 == 0 ? a.k : a.v;
  const Plane& plane = task % 2 == 0 ? p.cache.k : p.cache.v;
  const uint4 x = e < p.d ? load16(static_cast<const T*>(rows.data) + blockIdx.x * rows.row + head * rows.head + e) : uint4{};
  const Cache& c = p.cache;
  const int page = page_of(c, at.seq, at.token);
  const Row row{plane, c.page_shift, at.seq, page, at.token, head};
  const Row again{c.summary, c.page_shift - c.summary_shift, at.seq, page, at.token >> c.summary_shift, head};
  const bool twice = task % 2 == 0 && c.summary.data != nullptr && (at.token & ((1 << c.summary_shift) - 1)) == 0;
  if constexpr (KV == Kv::same) {
    if (e < p.d) row.put(e, x);
    if (e < p.d && twice) again.put(e, x);
  } else {
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
    float y[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 u = unpack<T>(words[i]);
      y[2 * i] = u.x;
      y[2 * i + 1] = u.y;
    }
    const float scale = scale_for<KV>(row, y);
    uint32_t out[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i / 4] |= code_of<KV>(__fdiv_rn(y[i], scale)) << (i % 4 * 8);
    if (e < p.d) row.put(e, uint2{out[0], out[1]});
    if (e < p.d && twice) again.put(e, uint2{out[0], out[1]});
    if (e == 0 && twice && again.has_own_scale()) *again.scale() = scale;
  }
}

template <typename T, Kv KV>
cudaError_t write_rows(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  if (a.rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(a.rows), static_cast<unsigned>((2 * p.kv_heads + kWarps - 1) / kWarps));
  return launch(kv_write_kernel<T, KV>, grid, kWarps * 32, 0, stream, p, a);
}

template <typename T>
cudaError_t write_as(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  if (stores<T, Kv::e4m3>(p.kv_type)) return write_rows<T, Kv::e4m3>(p, a, stream);
  if (stores<T, Kv::i8>(p.kv_type)) return write_rows<T, Kv::i8>(p, a, stream);
  return write_rows<T, Kv::same>(p, a, stream);
}

}  // namespace

cudaError_t kv_write(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  return p.q_type == ElementType::f16 ? write_as<__half>(p, a, stream) : write_as<__nv_bfloat16>(p, a, stream);
}

}  // namespace bough::cuda
