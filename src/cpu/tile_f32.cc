// f32 kernels for every CPU, by Highway: this file is compiled once for each instruction set and the best is picked at run time.
#include <algorithm>
#include <type_traits>

#include "cpu/tile.h"
#include "steps/kv_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/tile_f32.cc"
// foreach_target.h must come before the others.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "cpu/tile_f32_pack-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kVecs = kTileKeys / kLanes;
constexpr int kRows = kLanes == 16 ? 12 : kLanes == 8 ? 3 : 1;  // kRows * kVecs sums fit the registers

HWY_INLINE Vec load_column(const float* at) { return hn::LoadU(Floats(), at); }
HWY_INLINE Vec load_column(const uint16_t* at) { return widen_halves(hn::LoadU(Halves(), at)); }

template <int R, typename T>
HWY_INLINE void multiply(const float* a, int64_t lda, int depth, const T* b, int64_t ldb, Vec (&acc)[R][kVecs]) {
  const Floats tag;
  for (int k = 0; k < depth; ++k) {
    Vec column[kVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) column[v] = load_column(b + k * ldb + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto x = hn::Set(tag, a[r * lda + k]);
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) acc[r][v] = hn::MulAdd(x, column[v], acc[r][v]);
    }
  }
}

template <int R, typename T>
void scores_rows(const float* a, int d, const T* tile, float* s, int64_t lds) {
  const Floats tag;
  Vec acc[R][kVecs];
  for (auto& row : acc) std::fill(row, row + kVecs, hn::Zero(tag));
  multiply<R>(a, d, d, tile, kTileKeys, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVecs; ++v) hn::StoreU(acc[r][v], tag, s + r * lds + v * kLanes);
  }
}

template <int R>
void max_rows(const float* a, int d, const float* tile, float* best) {
  const Floats tag;
  Vec acc[R][kVecs];
  for (auto& row : acc) std::fill(row, row + kVecs, hn::Zero(tag));
  multiply<R>(a, d, d, tile, kTileKeys, acc);
#pragma GCC unroll 16
  for (int v = 0; v < kVecs; ++v) {
    auto top = hn::LoadU(tag, best + v * kLanes);
    for (int r = 0; r < R; ++r) top = hn::Max(top, acc[r][v]);
    hn::StoreU(top, tag, best + v * kLanes);
  }
}

template <int R, typename T>
void accumulate_rows(const float* p, int keys, const T* v_tiles, int d, const float* alpha, float* o) {
  const Floats tag;
  for (int c = 0; c < padded(d); c += kTileKeys) {
    Vec acc[R][kVecs];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kVecs; ++v) acc[r][v] = hn::Mul(hn::Set(tag, alpha[r]), hn::LoadU(tag, o + r * padded(d) + c + v * kLanes));
    }
    multiply<R>(p, keys, keys, v_tiles + c, padded(d), acc);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kVecs; ++v) hn::StoreU(acc[r][v], tag, o + r * padded(d) + c + v * kLanes);
    }
  }
}

template <int R>
using Count = std::integral_constant<int, R>;

// Calls f(R, first row) for rows in blocks of kRows, then for what is left.
template <int R, typename F>
void last_rows(int count, int row, const F& f) {
  if constexpr (R > 0) {
    if (count == R) return f(Count<R>{}, row);
    last_rows<R - 1>(count, row, f);
  }
}
template <typename F>
void for_rows(int count, const F& f) {
  int row = 0;
  for (; row + kRows <= count; row += kRows) f(Count<kRows>{}, row);
  last_rows<kRows - 1>(count - row, row, f);
}

template <typename T>
void scores(const void* rows, int count, int d, const void* tile, float* s, int64_t lds) {
  for_rows(count, [=]<int R>(Count<R>, int row) HWY_ATTR {
    scores_rows<R>(static_cast<const float*>(rows) + row * d, d, static_cast<const T*>(tile), s + row * lds, lds);
  });
}

void max_scores(const void* rows, int groups, int count, int d, const void* tile, float* best) {
  for (int g = 0; g < groups; ++g) {
    const float* group = static_cast<const float*>(rows) + static_cast<int64_t>(g) * count * d;
    float* out = best + g * kTileKeys;
    for_rows(count, [=]<int R>(Count<R>, int row) HWY_ATTR { max_rows<R>(group + row * d, d, static_cast<const float*>(tile), out); });
  }
}

template <typename T>
void accumulate(const void* p, int count, int keys, const void* v_tiles, int d, const float* alpha, float* o) {
  for_rows(count, [=]<int R>(Count<R>, int row) HWY_ATTR {
    accumulate_rows<R>(static_cast<const float*>(p) + static_cast<int64_t>(row) * keys, keys, static_cast<const T*>(v_tiles), d,
                       alpha + row, o + static_cast<int64_t>(row) * padded(d));
  });
}

void narrow(const void* tile, int64_t count, void* narrowed) {
  upper_halves(static_cast<const float*>(tile), count, static_cast<uint16_t*>(narrowed));
}

void softcap(float* s, int64_t lds, int count, int keys, float cap) {
  const Floats tag;
  const auto scale = hn::Set(tag, cap);
  const auto inverse = hn::Set(tag, 1.0F / cap);
  for (int r = 0; r < count; ++r) {
    for (int j = 0; j < keys; j += kLanes) {
      float* at = s + r * lds + j;
      hn::StoreU(hn::Mul(scale, hn::Tanh(tag, hn::Mul(inverse, hn::LoadU(tag, at)))), tag, at);
    }
  }
}

// REQUIRES: count > 0.
float top_of(const float* x, int count) {
  const Floats tag;
  float top = x[0];
  int i = 0;
  if (count >= kLanes) {
    auto best = hn::LoadU(tag, x);
    for (i = kLanes; i + kLanes <= count; i += kLanes) best = hn::Max(best, hn::LoadU(tag, x + i));
    top = hn::GetLane(hn::MaxOfLanes(tag, best));
  }
  for (; i < count; ++i) top = std::max(top, x[i]);
  return top;
}

void softmax(const float* s, int64_t lds, int count, int keys, const int* hidden, const int* visible, float* m, float* l, float* alpha,
             void* p) {
  const Floats tag;
  for (int r = 0; r < count; ++r) {
    const float* row = s + r * lds;
    float* out = static_cast<float*>(p) + static_cast<int64_t>(r) * keys;
    const int seen = std::clamp(visible[r], 0, keys);
    const int first = hidden == nullptr ? 0 : std::clamp(hidden[r], 0, seen);
    if (first == seen) {
      alpha[r] = 1.0F;
      std::fill_n(out, keys, 0.0F);
      continue;
    }
    const float high = std::max(m[r], top_of(row + first, seen - first));
    const auto base = hn::Set(tag, high);
    for (int j = 0; j < keys; j += kLanes) hn::StoreU(hn::Exp(tag, hn::Sub(hn::LoadU(tag, row + j), base)), tag, out + j);
    std::fill(out, out + first, 0.0F);
    std::fill(out + seen, out + keys, 0.0F);
    auto sum = hn::Zero(tag);
    for (int j = 0; j < keys; j += kLanes) sum = hn::Add(sum, hn::LoadU(tag, out + j));
    alpha[r] = m[r] == high ? 1.0F : hn::GetLane(hn::Exp(tag, hn::Set(tag, std::max(m[r] - high, -1000.0F))));
    m[r] = high;
    l[r] = l[r] * alpha[r] + hn::GetLane(hn::SumOfLanes(tag, sum));
  }
}

const TileOps* tile_ops() {
  static const TileOps ops{.name = hwy::TargetName(HWY_TARGET),
                           .elem = sizeof(float),
                           .pass_rows = 24,
                           .pack_rows = pack_rows,
                           .pack_keys = pack_keys,
                           .pack_values = pack_values,
                           .scores = scores<float>,
                           .max_scores = max_scores,
                           .softcap = softcap,
                           .softmax = softmax,
                           .accumulate = accumulate<float>,
                           .narrow = narrow,
                           .scores_narrow = scores<uint16_t>,
                           .accumulate_narrow = accumulate<uint16_t>};
  return &ops;
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(tile_ops);

const TileOps* tile_f32() { return HWY_DYNAMIC_DISPATCH(tile_ops)(); }

}  // namespace bough::cpu
#endif
