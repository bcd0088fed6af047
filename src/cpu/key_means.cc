// key_means by Highway, with the bits of the scalar body: this file is compiled once for each instruction set and the best is picked at
// run time. But in f32, the even and the odd elements of a row are summed apart, as they lie in the halves of a word of bf16, of int8 or
// in the nibbles of int4, so that nothing has to be put back in order before the means are stored.
#include "steps/key_means.h"

#include <algorithm>
#include <cstring>

#include "cpu/cpu_bodies.h"
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

// Rows of one page that follow one another.
struct Rows {
  const std::byte* first;
  int count;
  size_t bytes;  // of one
  int d;
};

// As it lies in `rows`, elements that only a body without vectors takes: where d is no multiple of 16.
void add_plain(const Rows& rows, DType type, float* sum) {
  float block[kRowBlock];
  for (int i = 0; i < rows.count; ++i) {
    for (int first = 0; first < rows.d; first += kRowBlock) {
      load_block(rows.first + static_cast<size_t>(i) * rows.bytes, type, rows.d, first, block);
      for (int e = 0; e < std::min(kRowBlock, rows.d - first); ++e) sum[first + e] += block[e];
    }
  }
}

#if HWY_TARGET != HWY_SCALAR

// Sums, [even elements, then odd ones] of each block of twice as many elements as F has lanes.
template <class F>
struct Pair {
  hn::Vec<F> even, odd;
};

template <class F>
HWY_INLINE Pair<F> load_pair(F tag, const float* at) {
  return {hn::LoadU(tag, at), hn::LoadU(tag, at + hn::Lanes(tag))};
}

template <class F>
HWY_INLINE void store_pair(F tag, const Pair<F>& x, float* at) {
  hn::StoreU(x.even, tag, at);
  hn::StoreU(x.odd, tag, at + hn::Lanes(tag));
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

inline float scale_at(const std::byte* scale) { return load_element(scale, 0, DType::bf16); }

template <class F>
HWY_INLINE void add_f32(F tag, const Rows& rows, float* sum) {
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += hn::Lanes(tag)) {
    auto total = hn::LoadU(tag, sum + e);
    const std::byte* row = rows.first + e * sizeof(float);
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) total = hn::Add(total, hn::LoadU(tag, reinterpret_cast<const float*>(row)));
    hn::StoreU(total, tag, sum + e);
  }
}

template <class F>
HWY_INLINE void add_bf16(F tag, const Rows& rows, float* sum) {
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += 2 * hn::Lanes(tag)) {
    Pair<F> total = load_pair(tag, sum + e);
    const std::byte* row = rows.first + e * sizeof(uint16_t);
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) {
      const Pair<F> x = split_words(tag, row);
      total = {hn::Add(total.even, x.even), hn::Add(total.odd, x.odd)};
    }
    store_pair(tag, total, sum + e);
  }
}

template <class F>
HWY_INLINE void add_i8(F tag, const Rows& rows, float* sum) {
  const hn::RebindToSigned<F> words;
  const hn::Rebind<int16_t, F> halves;
  for (size_t e = 0; e < static_cast<size_t>(rows.d); e += 2 * hn::Lanes(tag)) {
    Pair<F> total = load_pair(tag, sum + e);
    const std::byte* row = rows.first;
    const size_t scale_offset = static_cast<size_t>(rows.d) + e / 32 * 2;
    for (int i = 0; i < rows.count; ++i, row += rows.bytes) {
      const auto scale = hn::Set(tag, scale_at(row + scale_offset));
      const auto codes = hn::PromoteTo(words, hn::LoadU(halves, reinterpret_cast<const int16_t*>(row + e)));
      const auto even = hn::ShiftRight<24>(hn::ShiftLeft<24>(codes));
      const auto odd = hn::ShiftRight<8>(codes);
      total.even = hn::Add(total.even, round_to_bf16(tag, hn::Mul(hn::ConvertTo(tag, even), scale)));
      total.odd = hn::Add(total.odd, round_to_bf16(tag, hn::Mul(hn::ConvertTo(tag, odd), scale)));
    }
    store_pair(tag, total, sum + e);
  }
}

// y with y[i] + y[i ^ step], but the difference the other way in lanes that have bit `step`.
template <class T>
HWY_INLINE hn::Vec<T> butterfly(T tag, hn::Vec<T> y, hn::Vec<T> swapped, int step) {
  const auto upper = hn::Ne(hn::And(hn::Iota(tag, 0), hn::Set(tag, static_cast<int16_t>(step))), hn::Zero(tag));
  return hn::IfThenElse(upper, hn::Sub(swapped, y), hn::Add(swapped, y));
}

// Stages of a Hadamard matrix of `size` over even elements alone: over 2, 4 and 8 elements apart.
template <class T>
HWY_INLINE hn::Vec<T> hadamard_of_evens(T tag, hn::Vec<T> y, int size) {
  const hn::Repartition<uint32_t, T> words;
  if (size > 2) y = butterfly(tag, y, hn::BitCast(tag, hn::RotateRight<16>(hn::BitCast(words, y))), 1);
  if (size > 4) y = butterfly(tag, y, hn::BitCast(tag, hn::Shuffle2301(hn::BitCast(words, y))), 2);
  if (size > 8) y = butterfly(tag, y, hn::BitCast(tag, hn::Shuffle1032(hn::BitCast(words, y))), 4);
  return y;
}

// The codes of as many bytes as T has lanes, and what a Hadamard matrix of `size`, at most 16, makes of them.
template <class T>
HWY_INLINE void transform_codes(T tag, const std::byte* bytes, int size, int16_t* even, int16_t* odd) {
  const auto packed = hn::PromoteTo(tag, hn::LoadU(hn::Rebind<uint8_t, T>(), reinterpret_cast<const uint8_t*>(bytes)));
  const auto eight = hn::Set(tag, int16_t{8});
  const auto low = hn::Sub(hn::And(packed, hn::Set(tag, int16_t{15})), eight);
  const auto high = hn::Sub(hn::ShiftRight<4>(packed), eight);
  hn::StoreU(hadamard_of_evens(tag, hn::Add(low, high), size), tag, even);
  hn::StoreU(hadamard_of_evens(tag, hn::Sub(low, high), size), tag, odd);
}

// A block of up to 128 elements: n of them, a multiple of 16.
template <class F>
HWY_INLINE void add_i4_block(F tag, const std::byte* row, int d, int first, int n, const std::byte* mean, float* sum) {
  constexpr size_t kLanes = hn::MaxLanes(F());  // 4 or 8: of the 8 even elements that share a scale
  constexpr size_t kApart = 8 / kLanes;         // vectors from a group's evens to those of the next
  const hn::RebindToSigned<F> words;
  const hn::Rebind<int16_t, F> halves;
  const hn::CappedTag<int16_t, 32> wide;
  const hn::FixedTag<int16_t, 8> narrow;
  const int size = hadamard_size(d);
  const auto bytes = static_cast<size_t>(n) / 2;
  alignas(64) int16_t even[kRowBlock / 2], odd[kRowBlock / 2];
  const std::byte* codes = row + codes_offset(DType::i4, first);
  size_t at = 0;
  for (; at + hn::Lanes(wide) <= bytes; at += hn::Lanes(wide)) transform_codes(wide, codes + at, size, even + at, odd + at);
  for (; at < bytes; at += 8) transform_codes(narrow, codes + at, size, even + at, odd + at);
  const std::byte* scales = row + scales_offset(DType::i4, d, first);
  const size_t vectors = bytes / kLanes;
  Pair<F> x[kRowBlock / 2 / kLanes];
  for (size_t v = 0; v < vectors; ++v) {
    const auto scale = hn::Set(tag, scale_at(scales + v / kApart * 2));
    x[v].even = hn::Mul(hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(halves, even + v * kLanes))), scale);
    x[v].odd = hn::Mul(hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(halves, odd + v * kLanes))), scale);
  }
  for (size_t apart = kApart; apart * kLanes * 2 < static_cast<size_t>(size); apart *= 2) {
    for (size_t v = 0; v < vectors; v += 2 * apart) {
      for (size_t w = v; w < v + apart; ++w) {
        const Pair<F> a = x[w], b = x[w + apart];
        x[w] = {hn::Add(a.even, b.even), hn::Add(a.odd, b.odd)};
        x[w + apart] = {hn::Sub(a.even, b.even), hn::Sub(a.odd, b.odd)};
      }
    }
  }
  for (size_t v = 0; v < vectors; ++v) {
    const Pair<F> base = split_words(tag, mean + v * kLanes * 4);
    float* to = sum + v * kLanes * 2;
    const Pair<F> total = load_pair(tag, to);
    store_pair(tag,
               Pair<F>{hn::Add(total.even, round_to_bf16(tag, hn::Add(x[v].even, base.even))),
                       hn::Add(total.odd, round_to_bf16(tag, hn::Add(x[v].odd, base.odd)))},
               to);
  }
}

template <class F>
HWY_INLINE void add_i4(F tag, const Rows& rows, float* sum) {
  const std::byte* row = rows.first;
  const std::byte* mean = mean_of(row, rows.d);
  for (int i = 0; i < rows.count; ++i, row += rows.bytes) {
    for (int first = 0; first < rows.d; first += kRowBlock) {
      add_i4_block(tag, row, rows.d, first, std::min(kRowBlock, rows.d - first), mean + size_t{2} * first, sum + first);
    }
  }
}

template <class F>
HWY_INLINE void store_f32(F tag, const float* sum, float share, int d, std::byte* out) {
  for (size_t e = 0; e < static_cast<size_t>(d); e += hn::Lanes(tag)) {
    hn::StoreU(hn::Mul(hn::LoadU(tag, sum + e), hn::Set(tag, share)), tag, reinterpret_cast<float*>(out) + e);
  }
}

template <class F>
HWY_INLINE void store_bf16(F tag, const float* sum, float share, int d, std::byte* out) {
  const hn::RebindToUnsigned<F> words;
  for (size_t e = 0; e < static_cast<size_t>(d); e += 2 * hn::Lanes(tag)) {
    const Pair<F> x = load_pair(tag, sum + e);
    const auto even = hn::BitCast(words, round_to_bf16(tag, hn::Mul(x.even, hn::Set(tag, share))));
    const auto odd = hn::BitCast(words, round_to_bf16(tag, hn::Mul(x.odd, hn::Set(tag, share))));
    hn::StoreU(hn::Or(hn::ShiftRight<16>(even), odd), words, reinterpret_cast<uint32_t*>(out + e * 2));
  }
}

#endif

// Calls f with rows [token, token + count) as they lie in their pages.
template <typename F>
HWY_INLINE void for_pages(const KeyMeansArgs& a, int64_t token, int64_t count, const F& f) {
  for (const int64_t end = token + count; token < end;) {
    const int64_t n = std::min(end - token, kPageTokens - token % kPageTokens);
    f(Rows{a.pages.row(token, a.plane, a.kv.row_bytes()), static_cast<int>(n), a.kv.row_bytes(), a.kv.head_dim});
    token += n;
  }
}

template <typename Add, typename Store>
HWY_INLINE void each_run(const KeyMeansArgs& a, const Add& add, const Store& store) {
  alignas(64) float sum[kMaxMeanDim];
  for (int run = 0; run < a.count; ++run) {
    std::fill_n(sum, a.kv.head_dim, 0.0F);
    for_pages(a, a.token + int64_t{run} * a.piece, a.piece, [&](const Rows& rows) HWY_ATTR { add(rows, sum); });
    store(sum, 1.0F / static_cast<float>(a.piece), a.out + static_cast<size_t>(run) * a.stride);
  }
}

void plain_means(const KeyMeansArgs& a) {
  const auto store = [&](const float* sum, float share, std::byte* out) {
    for (int e = 0; e < a.kv.head_dim; ++e) store_element(out, static_cast<size_t>(e), mean_type(a.kv.type), sum[e] * share);
  };
  each_run(a, [&](const Rows& rows, float* sum) { add_plain(rows, a.kv.type, sum); }, store);
}

#if HWY_TARGET != HWY_SCALAR
// REQUIRES: head_dim is a multiple of 2 * Lanes(tag).
template <class F>
HWY_INLINE void means_by(F tag, const KeyMeansArgs& a) {
  const int d = a.kv.head_dim;
  const auto to_bf16 = [=](const float* sum, float share, std::byte* out) HWY_ATTR { store_bf16(tag, sum, share, d, out); };
  switch (a.kv.type) {
    case DType::f32:
      each_run(
          a, [=](const Rows& rows, float* sum) HWY_ATTR { add_f32(tag, rows, sum); },
          [=](const float* sum, float share, std::byte* out) HWY_ATTR { store_f32(tag, sum, share, d, out); });
      break;
    case DType::bf16: each_run(a, [=](const Rows& rows, float* sum) HWY_ATTR { add_bf16(tag, rows, sum); }, to_bf16); break;
    case DType::i8: each_run(a, [=](const Rows& rows, float* sum) HWY_ATTR { add_i8(tag, rows, sum); }, to_bf16); break;
    case DType::i4: break;
  }
}
#endif

void key_means(const KeyMeansArgs& a) {
#if HWY_TARGET != HWY_SCALAR
  const int d = a.kv.head_dim;
  if (d % 16 == 0 && a.kv.type == DType::i4) {
    const hn::CappedTag<float, 8> tag;
    return each_run(
        a, [=](const Rows& rows, float* sum) HWY_ATTR { add_i4(tag, rows, sum); },
        [=](const float* sum, float share, std::byte* out) HWY_ATTR { store_bf16(tag, sum, share, d, out); });
  }
  if (d % 32 == 0) return means_by(hn::CappedTag<float, 16>(), a);
  if (d % 16 == 0) return means_by(hn::CappedTag<float, 8>(), a);
#endif
  plain_means(a);
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
