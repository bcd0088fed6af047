// Compiled once for each instruction set; the best is picked at run time.
#include "cpu/row_scores.h"

#include <algorithm>
#include <cstring>

#include "steps/kv_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/row_scores.cc"
// foreach_target.h must come before the other.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR && !HWY_HAVE_SCALABLE

using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
constexpr int kKeys = 4;  // that are scored together
constexpr int kMostRows = 3;
constexpr int kGroup = quant_group(DType::i8);
static_assert(kGroup % kLanes == 0);
using Fours = hn::CappedTag<float, 4>;

HWY_INLINE Vec round_to_bf16(Vec x) {
  const hn::RebindToUnsigned<Floats> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1U));
  return hn::BitCast(Floats(), hn::And(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffU))), hn::Set(du, 0xffff0000U)));
}

// 2 * kLanes elements of a key, from `first` on, as the two vectors that `order` has made for them.
template <DType type>
HWY_INLINE void load(const std::byte* key, int d, int first, Vec& a, Vec& b) {
  const Floats tag;
  if constexpr (type == DType::f32) {
    a = hn::LoadU(tag, reinterpret_cast<const float*>(key) + first);
    b = hn::LoadU(tag, reinterpret_cast<const float*>(key) + first + kLanes);
  } else if constexpr (type == DType::bf16) {
    const hn::RebindToUnsigned<Floats> words;
    const auto two = hn::LoadU(words, reinterpret_cast<const uint32_t*>(key) + first / 2);
    a = hn::BitCast(tag, hn::ShiftLeft<16>(two));
    b = hn::BitCast(tag, hn::And(two, hn::Set(words, 0xffff0000U)));
  } else {
    const hn::Rebind<int8_t, Floats> bytes;
    const hn::RebindToSigned<Floats> words;
    const auto* codes = reinterpret_cast<const int8_t*>(key) + first;
    const auto product = [&](int e) HWY_ATTR {
      const auto scale = load_element(key + d, static_cast<size_t>((first + e) / kGroup), DType::bf16);
      return round_to_bf16(hn::Mul(hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(bytes, codes + e))), hn::Set(tag, scale)));
    };
    a = product(0);
    b = product(kLanes);
  }
}

template <class V>
HWY_INLINE hn::Vec<Fours> sum_of_blocks(V x) {
  using D = hn::DFromV<V>;
  if constexpr (hn::MaxLanes(D()) == 4) {
    return x;
  } else {
    const hn::Half<D> half;
    return sum_of_blocks(hn::Add(hn::LowerHalf(half, x), hn::UpperHalf(half, x)));
  }
}

// The sums of the lanes of four vectors.
HWY_INLINE hn::Vec<Fours> sums(Vec a, Vec b, Vec c, Vec z) {
  const Floats tag;
  const hn::Repartition<double, Floats> pairs;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(tag, a, b), hn::InterleaveUpper(tag, a, b)));
  const auto cz = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(tag, c, z), hn::InterleaveUpper(tag, c, z)));
  return sum_of_blocks(hn::Add(hn::BitCast(tag, hn::InterleaveLower(pairs, ab, cz)), hn::BitCast(tag, hn::InterleaveUpper(pairs, ab, cz))));
}

// The best of R rows for each of four keys.
template <DType type, int R>
HWY_INLINE hn::Vec<Fours> best_of(const float* rows, int d, const std::byte* const* keys) {
  const Floats tag;
  Vec acc[R][kKeys];
  for (auto& row : acc) std::fill(row, row + kKeys, hn::Zero(tag));
  for (int e = 0; e < d; e += 2 * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kKeys; ++k) {
      Vec a, b;
      load<type>(keys[k], d, e, a, b);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        acc[r][k] = hn::MulAdd(a, hn::LoadU(tag, rows + r * d + e), acc[r][k]);
        acc[r][k] = hn::MulAdd(b, hn::LoadU(tag, rows + r * d + e + kLanes), acc[r][k]);
      }
    }
  }
  auto best = sums(acc[0][0], acc[0][1], acc[0][2], acc[0][3]);
#pragma GCC unroll 4
  for (int r = 1; r < R; ++r) best = hn::Max(best, sums(acc[r][0], acc[r][1], acc[r][2], acc[r][3]));
  return best;
}

// Runs of at least four keys, one after another.
template <DType type, int R>
void best_of_long_runs(const float* rows, int d, const std::byte* const* first, int runs, int length, size_t row_bytes, float* best) {
  const Fours fours;
  for (int i = 0; i < runs; ++i) {
    auto top = hn::Set(fours, best[i]);
    const std::byte* key = first[i];
    for (int k = 0; k < length; k += kKeys, key += kKeys * row_bytes) {
      const std::byte* const keys[kKeys] = {key, key + row_bytes, key + 2 * row_bytes, key + 3 * row_bytes};
      top = hn::Max(top, best_of<type, R>(rows, d, keys));
    }
    best[i] = hn::GetLane(hn::MaxOfLanes(fours, top));
  }
}

// Runs of one or two keys, four or two of them together; of what is left the last one stands for those that are missing.
template <DType type, int R>
void best_of_short_runs(const float* rows, int d, const std::byte* const* first, int runs, int length, size_t row_bytes, float* best) {
  const Fours fours;
  const int together = kKeys / length;
  for (int i = 0; i < runs; i += together) {
    const std::byte* keys[kKeys];
    float products[kKeys];
    for (int k = 0; k < kKeys; ++k) keys[k] = first[std::min(i + k / length, runs - 1)] + static_cast<size_t>(k % length) * row_bytes;
    hn::StoreU(best_of<type, R>(rows, d, keys), fours, products);
    for (int k = 0; k < kKeys && i + k / length < runs; ++k) best[i + k / length] = std::max(best[i + k / length], products[k]);
  }
}

template <DType type, int R>
void best_of_runs_rows(const float* rows, int d, const std::byte* const* first, int runs, int length, float* best) {
  const auto f = length < kKeys ? best_of_short_runs<type, R> : best_of_long_runs<type, R>;
  f(rows, d, first, runs, length, kv_row_bytes(type, d), best);
}

template <DType type>
void best_of_runs_of(const float* rows, int count, int d, const std::byte* const* first, int runs, int length, float* best) {
  int r = 0;
  for (; r + kMostRows <= count; r += kMostRows) best_of_runs_rows<type, kMostRows>(rows + r * d, d, first, runs, length, best);
  if (count - r == 2) best_of_runs_rows<type, 2>(rows + r * d, d, first, runs, length, best);
  if (count - r == 1) best_of_runs_rows<type, 1>(rows + r * d, d, first, runs, length, best);
}

void best_of_runs(const float* ordered, int count, int d, const std::byte* const* first, int runs, int length, DType type, float* best) {
  switch (type) {
    case DType::f32: return best_of_runs_of<DType::f32>(ordered, count, d, first, runs, length, best);
    case DType::bf16: return best_of_runs_of<DType::bf16>(ordered, count, d, first, runs, length, best);
    default: return best_of_runs_of<DType::i8>(ordered, count, d, first, runs, length, best);
  }
}

// Two elements of bf16 are a word: even ones come before odd ones.
void order(const float* rows, int count, int d, DType type, float* ordered) {
  if (type != DType::bf16) {
    std::copy_n(rows, static_cast<int64_t>(count) * d, ordered);
    return;
  }
  for (int64_t e = 0; e < static_cast<int64_t>(count) * d; e += 2 * kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      ordered[e + i] = rows[e + 2 * i];
      ordered[e + kLanes + i] = rows[e + 2 * i + 1];
    }
  }
}

const RowScoreOps* find_ops() {
  static const RowScoreOps ops{kLanes, order, best_of_runs};
  return &ops;
}

#else

const RowScoreOps* find_ops() { return nullptr; }

#endif

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(find_ops);

const RowScoreOps* row_score_ops() { return HWY_DYNAMIC_DISPATCH(find_ops)(); }

}  // namespace bough::cpu
#endif
