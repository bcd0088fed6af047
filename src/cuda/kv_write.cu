// kv_write: rows of keys and values to where the cache keeps their tokens, and of keys, or their means, to the summary. summarise: means of
// keys that are there. A warp takes one row of one KV head; a lane has eight elements.
#include <type_traits>

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
  int before = 0;  // rows of the call that are of the same sequence and before this one; -1: the cache has this one too
};

__device__ Place place_of(const WriteArgs& a, int row) {
  if (a.query_start == nullptr) return row < a.sequences && a.lengths[row] > 0 ? Place{row, a.lengths[row] - 1, 0} : Place{};
  if (row >= a.query_start[a.sequences]) return {};
  const int seq = last_at_most(a.query_start, a.sequences, row);
  return {seq, a.lengths[seq] - (a.query_start[seq + 1] - row), row - a.query_start[seq]};
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

// What a row is divided by: the scale that is there, or one of its own.
template <Kv KV>
__device__ float scale_for(const Row& row, const float (&x)[8]) {
  if (row.plane.scale == nullptr) return 1.0F;
  if (!row.has_own_scale()) return *row.scale();
  float most = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(x[i]));
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, apart));
  return most > 0 ? __fdiv_rn(most, KV == Kv::e4m3 ? 448.0F : 127.0F) : 1.0F;
}

template <typename T>
__device__ __forceinline__ void unpack_eight(uint4 words, float (&x)[8]) {
  const uint32_t w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = unpack<T>(w[i]);
    x[2 * i] = u.x;
    x[2 * i + 1] = u.y;
  }
}

template <Kv KV>
__device__ __forceinline__ uint2 codes_of(const float (&x)[8], float scale) {
  uint32_t out[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i / 4] |= code_of<KV>(__fdiv_rn(x[i], scale)) << (i % 4 * 8);
  return {out[0], out[1]};
}

// Rows that one warp writes of one KV head, and what they read as.
template <typename T, Kv KV>
struct Writer {
  const Problem& p;
  const WriteRows& rows;
  const Plane& plane;
  int head;
  int e = threadIdx.x % 32 * 8;  // this lane's first element

  __device__ __forceinline__ Row row(int seq, int token) const {
    return {plane, p.cache.page_shift, seq, page_of(p.cache, seq, token), token, head};
  }
  __device__ __forceinline__ uint4 source(int index) const {
    return e < p.d ? load16(static_cast<const T*>(rows.data) + index * rows.row + head * rows.head + e) : uint4{};
  }

  // What source row `index` reads as once it is written to `to`.
  __device__ __forceinline__ void read_back(int index, const Row& to, float (&x)[8]) const {
    unpack_eight<T>(source(index), x);
    if constexpr (KV != Kv::same) {
      const float scale = scale_for<KV>(to, x);
      const uint2 codes = codes_of<KV>(x, scale);
      unpack_eight<T>(widen_eight<T, KV>(codes), x);
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = __fmul_rn(x[i], scale);
    }
  }
  // What a row of the cache reads as.
  __device__ __forceinline__ void read(const Row& from, float (&x)[8]) const {
    unpack_eight<T>(e < p.d ? load_eight<T, KV>(plane.data, from.first() + e) : uint4{}, x);
    const float scale = KV == Kv::same || plane.scale == nullptr ? 1.0F : *from.scale();
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = __fmul_rn(x[i], scale);
  }

  // The mean of the run of keys that ends with source row `index`, in the order of its tokens, of which other warps may write some now.
  __device__ void write_mean(const Place& at, int index) const {
    const int shift = p.cache.summary_shift, keys = 1 << shift;
    float sum[8] = {};
    for (int back = keys - 1; back >= 0; --back) {
      const Row from = row(at.seq, at.token - back);
      float x[8];
      if (back <= at.before) {
        read_back(index - back, from, x);
      } else {
        read(from, x);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += x[i];
    }
    const float share = 1.0F / static_cast<float>(keys);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack<T>(sum[2 * i] * share, sum[2 * i + 1] * share);
    const int page = page_of(p.cache, at.seq, at.token);
    const Row mean{p.cache.summary, p.cache.page_shift - shift, at.seq, page, at.token >> shift, head};
    if (e < p.d) mean.put(e, uint4{words[0], words[1], words[2], words[3]});
  }
};

// Grid (rows, KV heads and then K or V, in warps).
template <typename T, Kv KV>
__global__ void __launch_bounds__(kWarps * 32) kv_write_kernel(Problem p, WriteArgs a) {
  const int task = blockIdx.y * kWarps + threadIdx.x / 32, head = task / 2;
  begin();
  if (head >= p.kv_heads) return;
  const Place at = place_of(a, blockIdx.x);
  if (at.seq < 0) return;
  const Cache& c = p.cache;
  const bool key = task % 2 == 0, summarised = key && c.summary.data != nullptr;
  const Writer<T, KV> writer{p, key ? a.k : a.v, key ? c.k : c.v, head};
  const int e = writer.e, mask = (1 << c.summary_shift) - 1;
  const Row row = writer.row(at.seq, at.token);
  const Row again{c.summary, c.page_shift - c.summary_shift, at.seq, row.page, at.token >> c.summary_shift, head};
  const bool twice = summarised && !c.means && (at.token & mask) == 0;
  const uint4 x = writer.source(blockIdx.x);
  if constexpr (KV == Kv::same) {
    if (e < p.d) row.put(e, x);
    if (e < p.d && twice) again.put(e, x);
  } else {
    float y[8];
    unpack_eight<T>(x, y);
    const float scale = scale_for<KV>(row, y);
    const uint2 codes = codes_of<KV>(y, scale);
    if (e < p.d) row.put(e, codes);
    if (e < p.d && twice) again.put(e, codes);
    if (e == 0 && row.has_own_scale()) *row.scale() = scale;
    if (e == 0 && twice && again.has_own_scale()) *again.scale() = scale;
  }
  if (summarised && c.means && (at.token & mask) == mask) writer.write_mean(at, blockIdx.x);
}

// Grid (means from the last one of a sequence back, KV heads in warps, sequences).
template <typename T, Kv KV>
__global__ void __launch_bounds__(kWarps * 32) summarise_kernel(Problem p, WriteArgs a) {
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, seq = blockIdx.z, shift = p.cache.summary_shift;
  begin();
  if (head >= p.kv_heads) return;
  const int length = a.lengths[seq], mean = (length >> shift) - 1 - static_cast<int>(blockIdx.x), last = ((mean + 1) << shift) - 1;
  const int rows = a.query_start == nullptr ? length : a.query_start[seq + 1] - a.query_start[seq];
  if (mean < 0 || last < length - rows) return;
  Writer<T, KV>{p, a.k, p.cache.k, head}.write_mean({seq, last, -1}, 0);
}

template <typename T, Kv KV>
cudaError_t summarise_rows(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  const int means = (a.rows >> p.cache.summary_shift) + 1;
  const dim3 grid(static_cast<unsigned>(means), static_cast<unsigned>((p.kv_heads + kWarps - 1) / kWarps),
                  static_cast<unsigned>(a.sequences));
  return launch(summarise_kernel<T, KV>, grid, kWarps * 32, 0, stream, p, a);
}

template <typename T, Kv KV>
cudaError_t write_rows(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  if (a.rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(a.rows), static_cast<unsigned>((2 * p.kv_heads + kWarps - 1) / kWarps));
  return launch(kv_write_kernel<T, KV>, grid, kWarps * 32, 0, stream, p, a);
}

// go(element type, storage) for the problem's types.
template <typename T, typename Go>
cudaError_t with_storage(const Problem& p, Go go) {
  if (stores<T, Kv::e4m3>(p.kv_type)) return go(T{}, std::integral_constant<Kv, Kv::e4m3>{});
  if (stores<T, Kv::i8>(p.kv_type)) return go(T{}, std::integral_constant<Kv, Kv::i8>{});
  return go(T{}, std::integral_constant<Kv, Kv::same>{});
}
template <typename Go>
cudaError_t with_types(const Problem& p, Go go) {
  return p.q_type == ElementType::f16 ? with_storage<__half>(p, go) : with_storage<__nv_bfloat16>(p, go);
}

}  // namespace

cudaError_t kv_write(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  return with_types(p, [&](auto element, auto kv) { return write_rows<decltype(element), decltype(kv)::value>(p, a, stream); });
}

cudaError_t summarise(const Problem& p, const WriteArgs& a, cudaStream_t stream) {
  return with_types(p, [&](auto element, auto kv) { return summarise_rows<decltype(element), decltype(kv)::value>(p, a, stream); });
}

}  // namespace bough::cuda
