// The small matrix kernels that scan, attend and attend_cached are made of, one set per instruction set and element type.
//
// Layouts (elem = 2: bf16, two consecutive elements of the summed dimension side by side; elem = 4: f32):
//   rows    [rows][d]                            the left operand
//   K tile  elem 2: [d/2][32 keys][2]            elem 4: [d][32 keys]
//   V tile  elem 2: [16][padded(d)][2 keys]      elem 4: [32 keys][padded(d)]; tiles of consecutive keys follow one another
#pragma once

#include <cstddef>
#include <cstdint>

#include "bough/types.h"
#include "steps/rope.h"

namespace bough::cpu {

inline constexpr int kTileKeys = 32;

constexpr int padded(int d) { return (d + 31) / 32 * 32; }

struct TileOps {
  const char* name;
  size_t elem;    // bytes of an element of rows and tiles
  int pass_rows;  // rows to multiply at once, a multiple of what the kernels do best

  // Take and give back this thread's matrix unit; null where there is none. scores, max_scores and accumulate run in between.
  void (*begin)() = nullptr;
  void (*end)() = nullptr;

  // x [count] to elements, rounded to `round` on the way. count is even.
  void (*pack_rows)(const float* x, int64_t count, DType round, void* rows);
  // Gathers, turns and transposes 32 rows of `type`; a null key is zero. cos, sin [rope.dims/2][32] or null: not rotated. Rounded as
  // `rounded` does.
  void (*pack_keys)(const std::byte* const* keys, DType type, int d, const RopeParams& rope, const float* cos, const float* sin,
                    void* tile);
  // 32 rows of `type`; null is zero.
  void (*pack_values)(const std::byte* const* values, DType type, int d, void* tile);
  // s[r * lds + j] = rows[r] . key j
  void (*scores)(const void* rows, int count, int d, const void* tile, float* s, int64_t lds);
  // best[g][j] = max over r of rows[g][r] . key j, and of best[g][j]; rows [groups][count][d], best [groups][32]
  void (*max_scores)(const void* rows, int groups, int count, int d, const void* tile, float* best);
  // s[r * lds + j] = cap * tanh(s / cap) for `keys` (a multiple of 32) scores of each row, to 1e-6 * cap.
  void (*softcap)(float* s, int64_t lds, int count, int keys, float cap);
  // Online softmax of one group of keys: row r sees scores [hidden[r], visible[r]) of `keys` (a multiple of 32); hidden may be null: 0.
  // Updates the running maximum m[r] and sum l[r], gives alpha[r] for what was accumulated before, and weights p [count][keys] as
  // elements, 0 where the row sees nothing.
  void (*softmax)(const float* s, int64_t lds, int count, int keys, const int* hidden, const int* visible, float* m, float* l, float* alpha,
                  void* p);
  // o[r] = o[r] * alpha[r] + p[r] . V; o [count][padded(d)]. keys is a multiple of 32, 512 at most.
  void (*accumulate)(const void* p, int count, int keys, const void* v_tiles, int d, const float* alpha, float* o);

  // Where elements are f32: tiles of elements that are bf16 as such, kept as that in the same order, which is half as much to read; null in
  // the other sets. `count` elements of a tile, and scores and accumulate with such tiles.
  void (*narrow)(const void* tile, int64_t count, void* narrowed) = nullptr;
  void (*scores_narrow)(const void* rows, int count, int d, const void* tile, float* s, int64_t lds) = nullptr;
  void (*accumulate_narrow)(const void* p, int count, int keys, const void* v_tiles, int d, const float* alpha, float* o) = nullptr;

  // Whether tiles of a cache of this type can be narrowed: all but f32 read as bf16.
  bool narrows(DType kv) const { return narrow != nullptr && kv != DType::f32; }

  size_t k_tile_bytes(int d) const { return static_cast<size_t>(d) * kTileKeys * elem; }
  size_t v_tile_bytes(int d) const { return static_cast<size_t>(padded(d)) * kTileKeys * elem; }
};

// Between begin and end.
class TileScope {
 public:
  explicit TileScope(const TileOps& ops) : end_(ops.end) {
    if (ops.begin != nullptr) ops.begin();
  }
  ~TileScope() {
    if (end_ != nullptr) end_();
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  void (*end_)();
};

// Highway, for the best instruction set of this CPU: f32 elements, every KV type.
const TileOps* tile_f32();

// AVX-512 BF16: bf16 elements, every KV type but f32; null where the CPU lacks it.
const TileOps* tile_bf16();

// AMX, with the same elements and types; null where the CPU lacks it or the system does not let us use it.
const TileOps* tile_amx();

}  // namespace bough::cpu
