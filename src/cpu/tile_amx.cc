// AMX kernels: the products of the AVX-512 BF16 set by tiles of 16 rows x 32 bf16 (tdpbf16ps); packing and softmax are that set's. A row's
// sums run over the same elements in the same order whatever rows stand beside it.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/tile.h"

namespace bough::cpu {
namespace {

#pragma GCC push_options
#ifndef BOUGH_EMULATED_AMX  // tests/tile_amx_test.cc, which runs on any CPU
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,amx-tile,amx-bf16")
#endif

constexpr int kTileRows = 16;
constexpr int kRowBytes = 64;  // of a tile: 32 bf16 or 16 f32
constexpr int kColumns = 32;   // that one call of multiply sums: two tiles

// All eight tiles whole: 0 to 3 are sums (two of rows x two of columns), 4 and 5 rows, 6 and 7 columns.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {kRowBytes, kRowBytes, kRowBytes, kRowBytes, kRowBytes, kRowBytes, kRowBytes, kRowBytes};
  uint8_t rows[16] = {kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows};
};
static_assert(sizeof(TileConfig) == 64);

void begin() {
  static constexpr TileConfig config;
  _tile_loadconfig(&config);
}
void end() { _tile_release(); }

// Stores before this are in memory for the tile loads after it, of which the compiler knows nothing.
inline void stores_are_done() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// The right operand: pairs of consecutive elements of the summed dimension, `stride` bytes from pair to pair, `step` from 16 pairs to 16.
struct Right {
  const std::byte* data;
  int64_t stride;
  int64_t step;
  int steps;
};

// Tiles 0 to 3 += rows [0, 32) of a x 32 columns.
inline void multiply_32(const std::byte* a, int64_t stride, const Right& b) {
  for (int k = 0; k < b.steps; ++k) {
    const std::byte* columns = b.data + k * b.step;
    const std::byte* rows = a + k * kRowBytes;
    _tile_loadd(6, columns, b.stride);
    _tile_loadd(4, rows, stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, columns + kRowBytes, b.stride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, rows + kTileRows * stride, stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Tiles 0 and 1 += rows [0, 16) of a x 32 columns.
inline void multiply_16(const std::byte* a, int64_t stride, const Right& b) {
  for (int k = 0; k < b.steps; ++k) {
    const std::byte* columns = b.data + k * b.step;
    _tile_loadd(6, columns, b.stride);
    _tile_loadd(7, columns + kRowBytes, b.stride);
    _tile_loadd(4, a + k * kRowBytes, stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
}

// Two tiles to or from 16 rows of 32 floats, `stride` bytes apart.
template <int T>
inline void store(float* out, int64_t stride) {
  if constexpr (T == 0) {
    _tile_stored(0, out, stride);
    _tile_stored(1, out + kTileRows, stride);
  } else {
    _tile_stored(2, out, stride);
    _tile_stored(3, out + kTileRows, stride);
  }
}
template <int T>
inline void load(const float* in, int64_t stride) {
  if constexpr (T == 0) {
    _tile_loadd(0, in, stride);
    _tile_loadd(1, in + kTileRows, stride);
  } else {
    _tile_loadd(2, in, stride);
    _tile_loadd(3, in + kTileRows, stride);
  }
}
inline void zero_32() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Up to 15 rows of `steps` tiles each, for a tile that reads 16. What lies in the other rows does not matter: rows do not meet.
class FewRows {
 public:
  FewRows(const std::byte* a, int count, int64_t stride, int steps) {
    const size_t bytes = static_cast<size_t>(steps) * kRowBytes;
    for (int r = 0; r < count; ++r) std::memcpy(data_ + r * kStride, a + r * stride, bytes);
    stores_are_done();
  }
  const std::byte* data() const { return data_; }
  static constexpr int kMostSteps = 16;  // 512 elements
  static constexpr int64_t kStride = kMostSteps * kRowBytes;

 private:
  alignas(64) std::byte data_[kTileRows * kStride];  // NOLINT(cppcoreguidelines-pro-type-member-init): see above
};

// f(rows of out, sums [rows][32], stride of sums in floats) after each product of `count` rows of a.
template <typename F>
inline void for_sums(const std::byte* a, int count, int64_t stride, const Right& b, const F& f) {
  alignas(64) float sums[2 * kTileRows * kColumns];
  constexpr int64_t sum_bytes = kColumns * sizeof(float);
  int r = 0;
  for (; r + 2 * kTileRows <= count; r += 2 * kTileRows) {
    zero_32();
    multiply_32(a + r * stride, stride, b);
    store<0>(sums, sum_bytes);
    store<1>(sums + kTileRows * kColumns, sum_bytes);
    f(r, 2 * kTileRows, sums);
  }
  for (; r < count; r += kTileRows) {
    const int rows = std::min(kTileRows, count - r);
    zero_32();
    if (rows == kTileRows) {
      multiply_16(a + r * stride, stride, b);
    } else {
      const FewRows few(a + r * stride, rows, stride, b.steps);
      multiply_16(few.data(), FewRows::kStride, b);
    }
    store<0>(sums, sum_bytes);
    f(r, rows, sums);
  }
}

// Heads of other sizes go to the AVX-512 set.
bool whole(int d) { return d % 32 == 0 && d <= 32 * FewRows::kMostSteps; }

Right keys_of(const void* tile, int d) { return {static_cast<const std::byte*>(tile), kTileKeys * 4, kTileRows * kTileKeys * 4, d / 32}; }

void scores(const void* rows, int count, int d, const void* tile, float* s, int64_t lds) {
  if (!whole(d)) return tile_bf16()->scores(rows, count, d, tile, s, lds);
  stores_are_done();
  const auto* a = static_cast<const std::byte*>(rows);
  const Right b = keys_of(tile, d);
  const int64_t stride = int64_t{2} * d;
  const auto out = lds * static_cast<int64_t>(sizeof(float));
  int r = 0;
  for (; r + 2 * kTileRows <= count; r += 2 * kTileRows) {
    zero_32();
    multiply_32(a + r * stride, stride, b);
    store<0>(s + r * lds, out);
    store<1>(s + (r + kTileRows) * lds, out);
  }
  for_sums(a + r * stride, count - r, stride, b, [=](int first, int n, const float* sums) {
    for (int i = 0; i < n; ++i) std::memcpy(s + (r + first + i) * lds, sums + i * kColumns, kColumns * sizeof(float));
  });
}

using Lanes = float __attribute__((vector_size(64)));
inline void read(const float* x, Lanes& lanes) { std::memcpy(&lanes, x, sizeof(lanes)); }
inline void write(const Lanes& lanes, float* x) { std::memcpy(x, &lanes, sizeof(lanes)); }

// The best of each group of `count` rows, whose sums come in their order.
class Maxima {
 public:
  Maxima(int count, float* best) : count_(count), best_(best) { begin_group(); }

  void take(const float* sums, int rows) {
    while (rows > 0) {
      if (left_ == 0) {
        finish();
        best_ += kColumns;
        begin_group();
      }
      const int run = std::min(rows, left_);
      take_run(sums, run);
      sums += run * kColumns;
      rows -= run;
      left_ -= run;
    }
  }
  void finish() const {
    write(first_, best_);
    write(second_, best_ + kTileRows);
  }

 private:
  // Even and odd rows apart: a maximum waits for the one before it.
  void take_run(const float* sums, int rows) {
    Lanes a = first_, b = second_, c = a, d = b, x, y;
    const auto take_row = [&](int row, Lanes& left, Lanes& right) {
      read(sums + row * kColumns, x);
      read(sums + row * kColumns + kTileRows, y);
      left = left < x ? x : left;
      right = right < y ? y : right;
    };
    for (int r = 0; r + 2 <= rows; r += 2) {
      take_row(r, a, b);
      take_row(r + 1, c, d);
    }
    if (rows % 2 == 1) take_row(rows - 1, a, b);
    first_ = a < c ? c : a;
    second_ = b < d ? d : b;
  }
  void begin_group() {
    read(best_, first_);
    read(best_ + kTileRows, second_);
    left_ = count_;
  }

  int count_;
  float* best_;
  int left_ = 0;  // rows of this group that have not come
  Lanes first_{}, second_{};
};

// Tiles 4 to 7: all keys of heads of 64 elements, for sums_of_64.
inline void load_64(const Right& keys) {
  _tile_loadd(4, keys.data, keys.stride);
  _tile_loadd(5, keys.data + kRowBytes, keys.stride);
  _tile_loadd(6, keys.data + keys.step, keys.stride);
  _tile_loadd(7, keys.data + keys.step + kRowBytes, keys.stride);
}
inline void sums_of_64(const std::byte* rows, int64_t stride, float* sums) {
  constexpr int64_t sum_bytes = kColumns * sizeof(float);
  _tile_zero(0);
  _tile_zero(1);
  _tile_loadd(2, rows, stride);
  _tile_dpbf16ps(0, 2, 4);
  _tile_dpbf16ps(1, 2, 5);
  _tile_loadd(3, rows + kRowBytes, stride);
  _tile_dpbf16ps(0, 3, 6);
  _tile_dpbf16ps(1, 3, 7);
  store<0>(sums, sum_bytes);
}

// Keys stay in their tiles; while 16 rows are multiplied, the best of the 16 before are found.
void max_scores_64(const std::byte* a, int count, const Right& keys, Maxima& best) {
  constexpr int64_t stride = 128;
  alignas(64) float sums[2][kTileRows * kColumns];
  load_64(keys);
  int r = 0, turn = 0;
  for (; r + kTileRows <= count; r += kTileRows, turn ^= 1) {
    sums_of_64(a + r * stride, stride, sums[turn]);
    if (r > 0) best.take(sums[turn ^ 1], kTileRows);
  }
  if (r > 0) best.take(sums[turn ^ 1], kTileRows);
  if (r == count) return;
  const FewRows few(a + r * stride, count - r, stride, 2);
  sums_of_64(few.data(), FewRows::kStride, sums[turn]);
  best.take(sums[turn], count - r);
}

void max_scores(const void* rows, int groups, int count, int d, const void* tile, float* best) {
  if (groups == 0) return;
  if (!whole(d)) return tile_bf16()->max_scores(rows, groups, count, d, tile, best);
  stores_are_done();
  Maxima maxima(count, best);
  const auto* a = static_cast<const std::byte*>(rows);
  if (d == 64) {
    max_scores_64(a, groups * count, keys_of(tile, d), maxima);
  } else {
    for_sums(a, groups * count, int64_t{2} * d, keys_of(tile, d), [&](int, int n, const float* sums) { maxima.take(sums, n); });
  }
  maxima.finish();
}

void scale_rows(float* o, int count, int64_t columns, const float* alpha) {
  for (int r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) o[r * columns + c] *= alpha[r];
  }
}

void accumulate(const void* p, int count, int keys, const void* v_tiles, int d, const float* alpha, float* o) {
  const int64_t columns = padded(d);
  scale_rows(o, count, columns, alpha);
  stores_are_done();
  const auto* a = static_cast<const std::byte*>(p);
  const int64_t stride = int64_t{2} * keys;
  const int64_t out = columns * static_cast<int64_t>(sizeof(float));
  const int64_t pairs = columns * 4;
  for (int64_t c = 0; c < columns; c += kColumns) {
    const Right b{static_cast<const std::byte*>(v_tiles) + c * 4, pairs, kTileRows * pairs, keys / 32};
    int r = 0;
    for (; r + 2 * kTileRows <= count; r += 2 * kTileRows) {
      float* first = o + r * columns + c;
      float* second = first + kTileRows * columns;
      load<0>(first, out);
      load<1>(second, out);
      multiply_32(a + r * stride, stride, b);
      store<0>(first, out);
      store<1>(second, out);
    }
    for (; r + kTileRows <= count; r += kTileRows) {
      load<0>(o + r * columns + c, out);
      multiply_16(a + r * stride, stride, b);
      store<0>(o + r * columns + c, out);
    }
    if (r == count) continue;
    alignas(64) float sums[kTileRows * kColumns];
    for (int i = r; i < count; ++i) std::memcpy(sums + (i - r) * kColumns, o + i * columns + c, kColumns * sizeof(float));
    const FewRows few(a + r * stride, count - r, stride, b.steps);
    load<0>(sums, kColumns * sizeof(float));
    multiply_16(few.data(), FewRows::kStride, b);
    store<0>(sums, kColumns * sizeof(float));
    for (int i = r; i < count; ++i) std::memcpy(o + i * columns + c, sums + (i - r) * kColumns, kColumns * sizeof(float));
  }
}

#pragma GCC pop_options

// The kernel hands out the state of tiles to processes that ask for it.
bool may_use_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned bf16 = 1U << 22, tile = 1U << 24;
  constexpr long ask_for_state = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (d & bf16) != 0 && (d & tile) != 0 && syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}

}  // namespace

const TileOps* tile_amx() {
  static const bool runs = tile_bf16() != nullptr && may_use_amx();
  if (!runs) return nullptr;
  static const TileOps ops = [] {
    TileOps all = *tile_bf16();
    all.name = "amx_bf16";
    all.pass_rows = 2 * kTileRows;
    all.begin = begin;
    all.end = end;
    all.scores = scores;
    all.max_scores = max_scores;
    all.accumulate = accumulate;
    return all;
  }();
  return &ops;
}

}  // namespace bough::cpu
