// Packing of tile_f32.cc: rows and tiles from what the pages hold. Included once for each instruction set.
#if defined(BOUGH_CPU_TILE_F32_PACK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef BOUGH_CPU_TILE_F32_PACK_INL_H
#undef BOUGH_CPU_TILE_F32_PACK_INL_H
#else
#define BOUGH_CPU_TILE_F32_PACK_INL_H
#endif

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/tile.h"
#include "hwy/highway.h"
#include "steps/kv_row.h"

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vec = hn::Vec<Floats>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats())) < kTileKeys ? static_cast<int>(hn::MaxLanes(Floats())) : kTileKeys;

// As many bf16 as a vector has lanes.
using Halves = hn::Rebind<uint16_t, Floats>;
HWY_INLINE Vec widen_halves(hn::Vec<Halves> x) {
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<Floats>(), x)));
}

HWY_INLINE Vec round_to_bf16(Vec x) {
  const hn::RebindToUnsigned<Floats> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1U));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffU)));
  return hn::BitCast(Floats(), hn::And(rounded, hn::Set(du, 0xffff0000U)));
}

inline void pack_rows(const float* x, int64_t count, DType round, void* rows) {
  auto* out = static_cast<float*>(rows);
  for (int64_t i = 0; i < count; ++i) out[i] = rounded(x[i], round);
}

// A null row reads as zeros: this one, of the largest head in f32.
alignas(64) constexpr std::byte kZeroRow[256 * sizeof(float)] = {};

#if HWY_TARGET != HWY_SCALAR
// Four elements, from `first` on, of rows 0, 4, 8, ..., a row to each block of four lanes.
template <typename T, class D>
HWY_INLINE hn::Vec<D> load_fours(D tag, const std::byte* const* rows, int first) {
  constexpr size_t lanes = hn::MaxLanes(D());
  if constexpr (lanes == 4) {
    return hn::LoadU(tag, reinterpret_cast<const T*>(rows[0]) + first);
  } else {
    const hn::Half<D> half;
    const auto low = load_fours<T>(half, rows, first);
    return hn::Combine(tag, load_fours<T>(half, rows + lanes / 2, first), low);
  }
}

template <DType type>
HWY_INLINE Vec load_floats(const std::byte* const* rows, int first) {
  if constexpr (type == DType::f32) {
    return load_fours<float>(Floats(), rows, first);
  } else {
    return widen_halves(load_fours<uint16_t>(Halves(), rows, first));
  }
}

// Elements [e, e + 4) of as many rows as a vector has lanes, in blocks of 4 x 4.
template <DType type>
HWY_INLINE void transpose_fours(const std::byte* const* rows, int e, float* out) {
  const Floats tag;
  const Vec a = load_floats<type>(rows, e);
  const Vec b = load_floats<type>(rows + 1, e);
  const Vec c = load_floats<type>(rows + 2, e);
  const Vec z = load_floats<type>(rows + 3, e);
  const Vec ac_low = hn::InterleaveLower(tag, a, c);
  const Vec bz_low = hn::InterleaveLower(tag, b, z);
  const Vec ac_high = hn::InterleaveUpper(tag, a, c);
  const Vec bz_high = hn::InterleaveUpper(tag, b, z);
  hn::StoreU(hn::InterleaveLower(tag, ac_low, bz_low), tag, out);
  hn::StoreU(hn::InterleaveUpper(tag, ac_low, bz_low), tag, out + kTileKeys);
  hn::StoreU(hn::InterleaveLower(tag, ac_high, bz_high), tag, out + 2 * kTileKeys);
  hn::StoreU(hn::InterleaveUpper(tag, ac_high, bz_high), tag, out + 3 * kTileKeys);
}

// Two elements of bf16 from each of a vector's words, to their rows of the tile.
template <class V>
HWY_INLINE void store_two(V words, float* out) {
  const hn::RebindToUnsigned<Floats> tag;
  hn::StoreU(hn::BitCast(Floats(), hn::ShiftLeft<16>(words)), Floats(), out);
  hn::StoreU(hn::BitCast(Floats(), hn::And(words, hn::Set(tag, 0xffff0000U))), Floats(), out + kTileKeys);
}

// Elements [e, e + 8) of rows of bf16: as transpose_fours, with two elements a word.
HWY_INLINE void transpose_eights(const std::byte* const* rows, int e, float* out) {
  const hn::RebindToUnsigned<Floats> tag;
  const auto a = load_fours<uint32_t>(tag, rows, e / 2);
  const auto b = load_fours<uint32_t>(tag, rows + 1, e / 2);
  const auto c = load_fours<uint32_t>(tag, rows + 2, e / 2);
  const auto z = load_fours<uint32_t>(tag, rows + 3, e / 2);
  const auto ac_low = hn::InterleaveLower(tag, a, c);
  const auto bz_low = hn::InterleaveLower(tag, b, z);
  const auto ac_high = hn::InterleaveUpper(tag, a, c);
  const auto bz_high = hn::InterleaveUpper(tag, b, z);
  store_two(hn::InterleaveLower(tag, ac_low, bz_low), out);
  store_two(hn::InterleaveUpper(tag, ac_low, bz_low), out + 2 * kTileKeys);
  store_two(hn::InterleaveLower(tag, ac_high, bz_high), out + 4 * kTileKeys);
  store_two(hn::InterleaveUpper(tag, ac_high, bz_high), out + 6 * kTileKeys);
}
#endif

// out [d][kTileKeys]: element e of row j at e * kTileKeys + j. REQUIRES: no row is null.
template <DType type>
void transpose(const std::byte* const* rows, int d, float* out) {
  int e = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; type == DType::bf16 && e + 8 <= d; e += 8) {
    for (int j = 0; j < kTileKeys; j += kLanes) transpose_eights(rows + j, e, out + e * kTileKeys + j);
  }
  for (; e + 4 <= d; e += 4) {
    for (int j = 0; j < kTileKeys; j += kLanes) transpose_fours<type>(rows + j, e, out + e * kTileKeys + j);
  }
#endif
  for (; e < d; ++e) {
    for (int j = 0; j < kTileKeys; ++j) out[e * kTileKeys + j] = load_element(rows[j], static_cast<size_t>(e), type);
  }
}

// Elements [first, first + n) of a row of int8, with the bits of load_row. REQUIRES: first is a multiple of 32.
HWY_INLINE void widen_i8(const std::byte* row, int d, int first, int n, float* out) {
  constexpr int group = quant_group(DType::i8);
  const auto* codes = reinterpret_cast<const int8_t*>(row) + first;
  for (int begin = 0; begin < n; begin += group) {
    const float scale = load_element(row + d, static_cast<size_t>((first + begin) / group), DType::bf16);
    const int end = std::min(n, begin + group);
    int e = begin;
#if HWY_TARGET != HWY_SCALAR
    const Floats tag;
    const hn::Rebind<int8_t, Floats> bytes;
    const hn::RebindToSigned<Floats> words;
    for (; e + kLanes <= end; e += kLanes) {
      const auto x = hn::ConvertTo(tag, hn::PromoteTo(words, hn::LoadU(bytes, codes + e)));
      hn::StoreU(round_to_bf16(hn::Mul(x, hn::Set(tag, scale))), tag, out + e);
    }
#endif
    for (; e < end; ++e) out[e] = rounded(static_cast<float>(codes[e]) * scale, DType::bf16);
  }
}

// f32 that are bf16 as such.
HWY_INLINE void upper_halves(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::RebindToUnsigned<Floats> words;
  const Halves halves;
  for (; i + kLanes <= n; i += kLanes) {
    const auto bits = hn::BitCast(words, hn::LoadU(Floats(), x + i));
    hn::StoreU(hn::TruncateTo(halves, hn::ShiftRight<16>(bits)), halves, out + i);
  }
#endif
  for (; i < n; ++i) out[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(x[i]) >> 16);
}

// Keys as bf16, which is what quantised types read as; a null key is zero.
template <DType type>
void transpose_quantised(const std::byte* const* keys, int d, float* out) {
  uint16_t block[kTileKeys][kRowBlock];
  const std::byte* rows[kTileKeys];
  for (int j = 0; j < kTileKeys; ++j) rows[j] = reinterpret_cast<const std::byte*>(block[j]);
  for (int first = 0; first < d; first += kRowBlock) {
    const int n = std::min(kRowBlock, d - first);
    for (int j = 0; j < kTileKeys; ++j) {
      if (keys[j] == nullptr) {
        std::fill_n(block[j], n, uint16_t{0});
        continue;
      }
      float x[kRowBlock];
      if constexpr (type == DType::i8) {
        widen_i8(keys[j], d, first, n, x);
      } else {
        load_block(keys[j], type, d, first, x);
      }
      upper_halves(x, n, block[j]);
    }
    transpose<DType::bf16>(rows, n, out + first * kTileKeys);
  }
}

inline void gather_keys(const std::byte* const* keys, DType type, int d, float* tile) {
  const std::byte* rows[kTileKeys];
  for (int j = 0; j < kTileKeys; ++j) rows[j] = keys[j] == nullptr ? kZeroRow : keys[j];
  switch (type) {
    case DType::f32: return transpose<DType::f32>(rows, d, tile);
    case DType::bf16: return transpose<DType::bf16>(rows, d, tile);
    case DType::i8: return transpose_quantised<DType::i8>(keys, d, tile);
    case DType::i4: return transpose_quantised<DType::i4>(keys, d, tile);
  }
}

inline void pack_keys(const std::byte* const* keys, DType type, int d, const RopeParams& rope, const float* cos, const float* sin,
                      void* out) {
  const Floats tag;
  auto* tile = static_cast<float*>(out);
  gather_keys(keys, type, d, tile);
  if (cos == nullptr) return;
  const int pairs = rope.dims / 2;
  for (int i = 0; i < pairs; ++i) {
    float* a = tile + (rope.layout == RopeLayout::interleaved ? 2 * i : i) * kTileKeys;
    float* b = tile + (rope.layout == RopeLayout::interleaved ? 2 * i + 1 : i + pairs) * kTileKeys;
    for (int j = 0; j < kTileKeys; j += kLanes) {
      const auto c = hn::LoadU(tag, cos + i * kTileKeys + j);
      const auto s = hn::LoadU(tag, sin + i * kTileKeys + j);
      const auto xa = hn::LoadU(tag, a + j);
      const auto xb = hn::LoadU(tag, b + j);
      auto ya = hn::Sub(hn::Mul(xa, c), hn::Mul(xb, s));
      auto yb = hn::MulAdd(xa, s, hn::Mul(xb, c));
      if (type != DType::f32) {
        ya = round_to_bf16(ya);
        yb = round_to_bf16(yb);
      }
      hn::StoreU(ya, tag, a + j);
      hn::StoreU(yb, tag, b + j);
    }
  }
}

// A bf16 row as floats.
inline void widen(const std::byte* row, int d, float* out) {
  int e = 0;
  for (; e + kLanes <= d; e += kLanes) {
    hn::StoreU(widen_halves(hn::LoadU(Halves(), reinterpret_cast<const uint16_t*>(row) + e)), Floats(), out + e);
  }
  for (; e < d; ++e) out[e] = load_element(row, static_cast<size_t>(e), DType::bf16);
}

inline void pack_values(const std::byte* const* values, DType type, int d, void* out) {
  auto* row = static_cast<float*>(out);
  for (int j = 0; j < kTileKeys; ++j, row += padded(d)) {
    if (values[j] == nullptr) {
      std::fill_n(row, d, 0.0F);
    } else if (type == DType::f32) {
      std::memcpy(row, values[j], static_cast<size_t>(d) * sizeof(float));
    } else if (type == DType::bf16) {
      widen(values[j], d, row);
    } else if (type == DType::i8) {
      widen_i8(values[j], d, 0, d, row);
    } else {
      load_row(values[j], type, d, row);
    }
    std::fill(row + d, row + padded(d), 0.0F);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#endif  // include guard by target
