// key_means by Highway, with the bits of the scalar body: this file is compiled once for each instruction set and the best is picked at
// run time. In every type but f32 the even and the odd elements of a row are summed apart, as they lie in the halves of a word of bf16, in
// two bytes of int8 or in the nibbles of int4; that is how the means are stored again. Runs that leave their page and rows that are no
// multiple of 16 go element by element.
#include "steps/key_means.h"

#include <algorithm>
#include <cstring>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "steps/kv_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/key_means.cc"
// foreach_target.h must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rows of a run, one after another in their page.
struct Rows {
  const std::byte* first;
  int count;
  size_t bytes;  // of one
  int d;
};

#if HWY_TARGET != HWY_SCALAR

// The even and the odd ones of twice as many elements as F has lanes.
template <class F>
struct Pair {
  hn::Vec<F> even, odd;
};

template <class F>
HWY_INLINE Pair<F> sum_of(const Pair<F>& x, const Pair<F>& y) {
  return {hn::Add(x.even, y.even), hn::Add(x.odd, y.odd)};
}

template <class F>
HWY_INLINE hn::Vec<F> upper_half(F tag, hn::Vec<hn::RebindToUnsigned<F>> x) {
  return hn::BitCast(tag, hn::And(x, hn::Set(hn::RebindToUnsigned<F>(), 0xffff0000U)));
}

// The two bf16 of each word.
template <class F>
HWY_INLINE Pair<F> split_words(F tag, const std::byte* at) {
  const hn::RebindToUnsigned<F> words;
  const auto x = hn::LoadU(words, reinterpret_cast<const uint32_t*>(at));
  return {hn::BitCast(tag, hn::ShiftLeft<16>(x)), upper_half(tag, x)};
}

// To bf16. A NaN must have no bits in its lower half, as all have that come of stored bf16.
template <class F>
HWY_INLINE hn::Vec<F> round_to_bf16(F tag, hn::Vec<F> x) {
  const hn::RebindToUnsigned<F> words;
  const auto bits = hn::BitCast(words, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1U));
  return upper_half(tag, hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7fffU))));
}

template <class F>
HWY_INLINE Pair<F> round_to_bf16(F tag, const Pair<F>& x) {
  return {round_to_bf16(tag, x.even), round_to_bf16(tag, x.odd)};
}

// Sums times `share` as the words of a row of bf16.
template <class F>
HWY_INLINE void store_words(F tag, const Pair<F>& sum, float share, std::byte* at) {
  const hn::RebindToUnsigned<F> words;
  const auto factor = hn::Set(tag, share);
  const Pair<F> x = round_to_bf16(tag, Pair<F>{hn::Mul(sum.even, factor), hn::Mul(sum.odd, factor)});
  const auto even = hn::ShiftRight<16>(hn::BitCast(words, x.even));
  hn::StoreU(hn::Or(even, hn::BitCast(words, x.odd)), words, reinterpret_cast<uint32_t*>(at));
}

HWY_INLINE float scale_at(const std::byte* scale) { return load_element(scale, 0, DType::bf16); }

template <class F>
HWY_INLINE void mean_f32(F tag, const Rows& rows, float share, std::byte* out) {
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += hn::Lanes(tag)) {
    auto sum = hn::Zero(tag);
    const std::byte* row = rows.first + e * sizeof(float);
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) sum = hn::Add(sum, hn::LoadU(tag, reinterpret_cast<const float*>(row)));
    hn::StoreU(hn::Mul(sum, hn::Set(tag, share)), tag, reinterpret_cast<float*>(out) + e);
  }
}

template <class F>
HWY_INLINE void mean_bf16(F tag, const Rows& rows, float share, std::byte* out) {
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += 2 * hn::Lanes(tag)) {
    Pair<F> sum = {hn::Zero(tag), hn::Zero(tag)};
    const std::byte* row = rows.first + e * 2;
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) sum = sum_of(sum, split_words(tag, row));
    store_words(tag, sum, share, out + e * 2);
  }
}

template <class F>
HWY_INLINE void mean_i8(F tag, const Rows& rows, float share, std::byte* out) {
  const hn::RebindToSigned<F> words;
  const hn::Rebind<int16_t, F> halves;
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += 2 * hn::Lanes(tag)) {
    Pair<F> sum = {hn::Zero(tag), hn::Zero(tag)};
    const std::byte* row = rows.first;
    const size_t scale_offset = static_cast<size_t>(rows.d) + e / 32 * 2;
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) {
      const auto scale = hn::Set(tag, scale_at(row + scale_offset));
      const auto codes = hn::PromoteTo(words, hn::LoadU(halves, reinterpret_cast<const int16_t*>(row + e)));
      const Pair<F> x = {hn::ConvertTo(tag, hn::ShiftRight<24>(hn::ShiftLeft<24>(codes))), hn::ConvertTo(tag, hn::ShiftRight<8>(codes))};
      sum = sum_of(sum, round_to_bf16(tag, Pair<F>{hn::Mul(x.even, scale), hn::Mul(x.odd, scale)}));
    }
    store_words(tag, sum, share, out + e * 2);
  }
}

// y with y[i] + y[i ^ step], but the difference the other way in lanes that have bit `step`.
template <class T>
HWY_INLINE hn::Vec<T> butterfly(T tag, hn::Vec<T> y, hn::Vec<T> swapped, int16_t step) {
  const auto upper = hn::Ne(hn::And(hn::Iota(tag, 0), hn::Set(tag, step)), hn::Zero(tag));
  return hn::IfThenElse(upper, hn::Sub(swapped, y), hn::Add(swapped, y));
}

// The stages of a Hadamard matrix of `size`, at most 16, but the first: over even elements alone, or odd ones.
template <class T>
HWY_INLINE hn::Vec<T> hadamard(T tag, hn::Vec<T> y, int size) {
  const hn::Repartition<uint32_t, T> words;
  if (size > 2) y = butterfly(tag, y, hn::BitCast(tag, hn::RotateRight<16>(hn::BitCast(words, y))), 1);
  if (size > 4) y = butterfly(tag, y, hn::BitCast(tag, hn::Shuffle2301(hn::BitCast(words, y))), 2);
  if (size > 8) y = butterfly(tag, y, hn::BitCast(tag, hn::Shuffle1032(hn::BitCast(words, y))), 4);
  return y;
}

// The codes of as many bytes as T has lanes, transformed within groups of 16.
template <class T>
HWY_INLINE void transform_codes(T tag, const std::byte* bytes, int size, int16_t* even, int16_t* odd) {
  const auto packed = hn::PromoteTo(tag, hn::LoadU(hn::Rebind<uint8_t, T>(), reinterpret_cast<const uint8_t*>(bytes)));
  const auto low = hn::Sub(hn::And(packed, hn::Set(tag, int16_t{15})), hn::Set(tag, int16_t{8}));
  const auto high = hn::Sub(hn::ShiftRight<4>(packed), hn::Set(tag, int16_t{8}));
  hn::StoreU(hadamard(tag, hn::Add(low, high), size), tag, even);
  hn::StoreU(hadamard(tag, hn::Sub(low, high), size), tag, odd);
}

// The larger stages, whole vectors at a time: x [vectors], `apart` of them from a group of 16 to the next.
template <class F>
HWY_INLINE void hadamard_of_groups(size_t vectors, size_t apart, size_t end, Pair<F>* x) {
  for (; apart < end; apart *= 2) {
    for (size_t i = 0; i < vectors; i += 2 * apart) {
      for (size_t j = i; j < i + apart; ++j) {
        const Pair<F> a = x[j], b = x[j + apart];
        x[j] = sum_of(a, b);
        x[j + apart] = {hn::Sub(a.even, b.even), hn::Sub(a.odd, b.odd)};
      }
    }
  }
}

// Elements [first, first + n) of the mean, of a block that the transformation of `size` does not leave.
template <class F>
HWY_INLINE void mean_i4_block(F tag, const Rows& rows, int first, int n, int size, float share, std::byte* out) {
  constexpr size_t kLanes = hn::MaxLanes(F());  // at most 8, the even elements that share a scale
  constexpr size_t kApart = 8 / kLanes;
  const hn::RebindToSigned<F> words;
  const hn::Rebind<int16_t, F> halves;
  const hn::CappedTag<int16_t, 32> wide;
  const hn::FixedTag<int16_t, 8> narrow;
  const size_t bytes = static_cast<size_t>(n) / 2, vectors = bytes / kLanes;
  const std::byte* mean = mean_of(rows.first, rows.d) + size_t{2} * first;
  Pair<F> sum[kRowBlock / 2 / kLanes], base[kRowBlock / 2 / kLanes], x[kRowBlock / 2 / kLanes];
  for (size_t v = 0; v < vectors; ++v) {
    sum[v] = {hn::Zero(tag), hn::Zero(tag)};
    base[v] = split_words(tag, mean + v * kLanes * 4);
  }
  const std::byte* row = rows.first;
  for (int i = 0; i < rows.count; ++i, row += rows.bytes) {
    alignas(64) int16_t even[kRowBlock / 2], odd[kRowBlock / 2];
    const std::byte* codes = row + codes_offset(DType::i4, first);
    const std::byte* scales = row + scales_offset(DType::i4, rows.d, first);
    size_t at = 0;
    for (; at + hn::Lanes(wide) <= bytes; at += hn::Lanes(wide)) transform_codes(wide, codes + at, size, even + at, odd + at);
    for (; at < bytes; at += 8) transform_codes(narrow, codes + at, size, even + at, odd + at);
    for (size_t v = 0; v < vectors; ++v) {
      const auto scale = hn::Set(tag, scale_at(scales + v / kApart * 2));
      x[v].even = hn::Mul(hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(halves, even + v * kLanes))), scale);
      x[v].odd = hn::Mul(hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(halves, odd + v * kLanes))), scale);
    }
    hadamard_of_groups<F>(vectors, kApart, static_cast<size_t>(size) / 2 / kLanes, x);
    for (size_t v = 0; v < vectors; ++v) sum[v] = sum_of(sum[v], round_to_bf16(tag, sum_of(x[v], base[v])));
  }
  for (size_t v = 0; v < vectors; ++v) store_words(tag, sum[v], share, out + v * kLanes * 4);
}

template <class F>
HWY_INLINE void mean_i4(F tag, const Rows& rows, float share, std::byte* out) {
  if (rows.d == 64) return mean_i4_block(tag, rows, 0, 64, 64, share, out);  // known to the compiler: all stays in registers
  for (int first = 0; first < rows.d; first += kRowBlock) {
    const int n = std::min(kRowBlock, rows.d - first), size = hadamard_size(rows.d);
    if (size == kRowBlock) {
      mean_i4_block(tag, rows, first, kRowBlock, kRowBlock, share, out + size_t{2} * first);
    } else {
      mean_i4_block(tag, rows, first, n, size, share, out + size_t{2} * first);
    }
  }
}

// Vectors of as many lanes as divide a row.
template <typename F>
HWY_INLINE void with_lanes(int d, const F& f) {
  if (d % 32 == 0) return f(hn::CappedTag<float, 16>());
  f(hn::CappedTag<float, 8>());
}

// REQUIRES: d is a multiple of 16.
void mean_by_vectors(const Rows& rows, DType type, float share, std::byte* out) {
  switch (type) {
    case DType::f32: return with_lanes(rows.d, [&](auto tag) HWY_ATTR { mean_f32(tag, rows, share, out); });
    case DType::bf16: return with_lanes(rows.d, [&](auto tag) HWY_ATTR { mean_bf16(tag, rows, share, out); });
    case DType::i8: return with_lanes(rows.d, [&](auto tag) HWY_ATTR { mean_i8(tag, rows, share, out); });
    case DType::i4: return mean_i4(hn::CappedTag<float, 8>(), rows, share, out);
  }
}

constexpr bool kVectors = true;

#else

void mean_by_vectors(const Rows&, DType, float, std::byte*) {}
constexpr bool kVectors = false;

#endif

void mean_by_elements(const KeyMeansArgs& a, int64_t token, float share, std::byte* out) {
  float sum[kMaxMeanDim] = {}, key[kMaxMeanDim];
  for (int i = 0; i < a.piece; ++i) {
    load_row(a.pages.row(token + i, a.plane, a.kv.row_bytes()), a.kv.type, a.kv.head_dim, key);
    for (int e = 0; e < a.kv.head_dim; ++e) sum[e] += key[e];
  }
  for (int e = 0; e < a.kv.head_dim; ++e) store_element(out, static_cast<size_t>(e), mean_type(a.kv.type), sum[e] * share);
}

// Brings the keys [token, token + piece) near, as far as the sequence and the first one's page have them.
void prefetch_run(const KeyMeansArgs& a, int64_t token) {
  const int64_t count = std::min({int64_t{a.piece}, kPageTokens - token % kPageTokens, a.pages.length - token});
  if (count > 0) prefetch_row(a.pages.row(token, a.plane, a.kv.row_bytes()), static_cast<size_t>(count) * a.kv.row_bytes());
}

void key_means(const KeyMeansArgs& a) {
  const float share = 1.0F / static_cast<float>(a.piece);
  for (int run = 0; run < a.count; ++run) {
    const int64_t token = a.token + int64_t{run} * a.piece;
    // Whoever asks for runs goes on behind them, in other pages as a rule: what will be asked for next is on its way meanwhile.
    prefetch_run(a, token + int64_t{a.count} * a.piece);
    std::byte* out = a.out + static_cast<size_t>(run) * a.stride;
    if (kVectors && a.kv.head_dim % 16 == 0 && token % kPageTokens + a.piece <= kPageTokens) {
      mean_by_vectors({a.pages.row(token, a.plane, a.kv.row_bytes()), a.piece, a.kv.row_bytes(), a.kv.head_dim}, a.kv.type, share, out);
    } else {
      mean_by_elements(a, token, share, out);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(key_means);

void key_means(const KeyMeansArgs& args) { HWY_DYNAMIC_DISPATCH(key_means)(args); }

}  // namespace bough::cpu
#endif
