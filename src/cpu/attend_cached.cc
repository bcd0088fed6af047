// Decode over working sets: an item is one row, one KV head and one split of 512 keys; the parts are merged afterwards.
#include "steps/attend_cached.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/mass.h"
#include "cpu/scratch.h"

namespace bough::cpu {
namespace {

constexpr int kSplitTiles = static_cast<int>(kSplitKeys) / kTileKeys;

struct Workspace {
  std::byte* q;   // [G, d] elements
  float* turned;  // [d]
  float* s;       // [G, kSplitKeys]
  std::byte* p;   // [G, kSplitKeys] elements
  float* o;       // [G, padded(d)]
  float* m;       // [G]
  float* l;
  float* alpha;
  int* hidden;
  int* visible;

  static Workspace carve(const TileOps& ops, int group, int d, Carver& carver) {
    Workspace w{};
    w.q = carver.bytes(static_cast<size_t>(group * d) * ops.elem);
    w.turned = carver.take<float>(d);
    w.s = carver.take<float>(group * kSplitKeys);
    w.p = carver.bytes(static_cast<size_t>(group * kSplitKeys) * ops.elem);
    w.o = carver.take<float>(static_cast<int64_t>(group) * padded(d));
    w.m = carver.take<float>(group);
    w.l = carver.take<float>(group);
    w.alpha = carver.take<float>(group);
    w.hidden = carver.take<int>(group);
    w.visible = carver.take<int>(group);
    return w;
  }
};

// What the splits give, for all threads: row, head, split.
struct Parts {
  float* o;           // [rows, hq, splits, d]
  float* lse;         // [rows, hq, splits]
  float* merged_lse;  // [rows, hq]

  static Parts carve(int64_t rows, int64_t heads, int64_t splits, int64_t d, Carver& carver) {
    Parts p{};
    p.o = carver.take<float>(rows * heads * splits * d);
    p.lse = carver.take<float>(rows * heads * splits);
    p.merged_lse = carver.take<float>(rows * heads);
    return p;
  }
};

// One split for the G heads of one KV head: o [G] rows of stride o_stride, lse [G] of stride lse_stride.
void attend_split(const TileOps& ops, const AttendCachedArgs& a, int row, int kv_head, int64_t split, const Workspace& w, float* o,
                  int64_t o_stride, float* lse, int64_t lse_stride) {
  const WorkingSet& set = *a.sets[row];
  const int d = a.heads.head_dim;
  const int group = a.heads.group();
  const int64_t from = split * kSplitKeys;
  const int seen = static_cast<int>(std::clamp<int64_t>(set.size - from, 0, kSplitKeys));
  const int tiles = (seen + kTileKeys - 1) / kTileKeys;
  for (int g = 0; g < group; ++g) {
    const float* q = a.q + (static_cast<int64_t>(row) * a.heads.heads + kv_head * group + g) * d;
    for (int i = 0; i < d; ++i) w.turned[i] = q[i] * a.heads.scale;
    rope_row(w.turned, a.rope->cos_row(set.query), a.rope->sin_row(set.query), a.rope->params(), d, w.turned);
    ops.pack_rows(w.turned, d, a.kv.type, w.q + static_cast<size_t>(g * d) * ops.elem);
  }
  std::fill_n(w.o, group * padded(d), 0.0F);
  std::fill_n(w.m, group, -std::numeric_limits<float>::infinity());
  std::fill_n(w.l, group, 0.0F);
  std::fill_n(w.visible, group, seen);
  if (a.window > 0) std::fill_n(w.hidden, group, static_cast<int>(std::clamp<int64_t>(set.size - a.window - from, 0, kSplitKeys)));
  const bool narrow = ops.narrows(a.kv.type);
  const auto scores = narrow ? ops.scores_narrow : ops.scores;
  for (int t = 0; t < tiles; ++t) scores(w.q, group, d, set.k_tile(kv_head, split * kSplitTiles + t), w.s + t * kTileKeys, kSplitKeys);
  if (a.heads.softcap > 0) ops.softcap(w.s, kSplitKeys, group, tiles * kTileKeys, a.heads.softcap);
  ops.softmax(w.s, kSplitKeys, group, tiles * kTileKeys, a.window > 0 ? w.hidden : nullptr, w.visible, w.m, w.l, w.alpha, w.p);
  const auto accumulate = narrow ? ops.accumulate_narrow : ops.accumulate;
  accumulate(w.p, group, tiles * kTileKeys, set.v_tile(kv_head, split * kSplitTiles), d, w.alpha, w.o);
  if (a.mass != nullptr && a.mass->rows[row] != nullptr) {
    const int64_t groups = a.mass->groups(set.size);
    for (int g = 0; g < group; ++g) {
      const std::byte* weights = w.p + static_cast<size_t>(g * tiles * kTileKeys) * ops.elem;
      log_mass(*a.mass, weights, ops.elem, from, tiles * kTileKeys, w.m[g], groups, a.mass->rows[row] + (kv_head * group + g) * groups);
    }
  }
  for (int g = 0; g < group; ++g) {
    const float scale = w.l[g] > 0 ? 1.0F / w.l[g] : 0.0F;
    for (int i = 0; i < d; ++i) o[g * o_stride + i] = w.o[g * padded(d) + i] * scale;
    lse[g * lse_stride] = w.m[g] + std::log(w.l[g]);
  }
}

}  // namespace

bool working_set_reserve(const TileOps& ops, const KvShape& shape, int64_t keys, WorkingSet& set) {
  const size_t bytes = std::max(ops.k_tile_bytes(shape.head_dim), ops.v_tile_bytes(shape.head_dim));
  return grow_working_set(shape.kv_heads, ops.narrows(shape.type) ? bytes / 2 : bytes, keys, set);
}

void working_set_build(const TileOps& ops, const WorkingSetArgs& a) {
  const int64_t first_tile = a.from / kTileKeys;
  const int64_t size = a.contexts[0].size();
  const int64_t tiles = (size + kTileKeys - 1) / kTileKeys - first_tile;
  const auto gather = [&](int64_t item, TileRows& rows) {
    const int head = static_cast<int>(item / tiles);
    gather_rows(a.contexts[a.list_heads == 1 ? 0 : head], *a.pages, a.kv, a.layer, head, (first_tile + item % tiles) * kTileKeys, rows);
  };
  const ContextPositions positions(a.positions, a.contexts[0], a.contexts[0].r1 - 1);
  const bool by_rank = positions.by_rank();
  const int pairs = a.rope->pairs();
  const int d = a.kv.head_dim;
  const bool narrow = ops.narrows(a.kv.type);
  const auto carve = [&](Carver& carver) {
    return std::pair(carver.take<float>(by_rank ? 0 : int64_t{2} * pairs * kTileKeys),
                     carver.bytes(narrow ? std::max(ops.k_tile_bytes(d), ops.v_tile_bytes(d)) : 0));
  };
  Carver sizes(nullptr);
  carve(sizes);
  const Scratch scratch(sizes.used());
#pragma omp parallel for schedule(static) if (tiles > 1)
  for (int64_t item = 0; item < tiles * a.kv.kv_heads; ++item) {
    const int head = static_cast<int>(item / tiles);
    const int64_t tile = first_tile + item % tiles;
    TileRows rows;
    if (item + 1 < tiles * a.kv.kv_heads) {
      gather(item + 1, rows);
      prefetch_rows(rows, a.kv.row_bytes());
    }
    gather(item, rows);
    Carver carver(scratch.mine());
    const auto [angles, wide] = carve(carver);
    const float* cos = a.rope->cos_tile(tile);
    const float* sin = a.rope->sin_tile(tile);
    if (!by_rank) {
      const Context& context = a.contexts[a.list_heads == 1 ? 0 : head];
      gather_key_angles(ContextPositions(a.positions, context, context.r1 - 1), *a.rope, tile * kTileKeys, size, angles);
      cos = angles;
      sin = angles + static_cast<ptrdiff_t>(pairs) * kTileKeys;
    }
    ops.pack_keys(rows.k, a.kv.type, d, a.rope->params(), cos, sin, narrow ? wide : a.set->k_tile(head, tile));
    if (narrow) ops.narrow(wide, int64_t{d} * kTileKeys, a.set->k_tile(head, tile));
    ops.pack_values(rows.v, a.kv.type, d, narrow ? wide : a.set->v_tile(head, tile));
    if (narrow) ops.narrow(wide, int64_t{padded(d)} * kTileKeys, a.set->v_tile(head, tile));
  }
  a.set->size = size;
  a.set->query = positions.query(a.contexts[0].r1 - 1);
}

void attend_cached(const TileOps& ops, const AttendCachedArgs& a) {
  const int rows = a.batch->decode_rows;
  const int d = a.heads.head_dim;
  int64_t splits = 1;
  for (int row = 0; row < rows; ++row) splits = std::max(splits, (a.sets[row]->size + kSplitKeys - 1) / kSplitKeys);
  Carver sizes(nullptr), shared_sizes(nullptr);
  Workspace::carve(ops, a.heads.group(), d, sizes);
  Parts::carve(rows, a.heads.heads, splits, d, shared_sizes);
  const Scratch scratch(sizes.used(), shared_sizes.used());
  Carver shared(scratch.shared());
  const Parts parts = Parts::carve(rows, a.heads.heads, splits, d, shared);
  const int64_t items = static_cast<int64_t>(rows) * a.heads.kv_heads * splits;
#pragma omp parallel for schedule(static)
  for (int64_t item = 0; item < items; ++item) {
    Carver carver(scratch.mine());
    const Workspace w = Workspace::carve(ops, a.heads.group(), d, carver);
    const TileScope scope(ops);
    const int64_t split = item % splits;
    const int kv_head = static_cast<int>(item / splits % a.heads.kv_heads);
    const int row = static_cast<int>(item / splits / a.heads.kv_heads);
    const int64_t part = (static_cast<int64_t>(row) * a.heads.heads + kv_head * a.heads.group()) * splits + split;
    attend_split(ops, a, row, kv_head, split, w, parts.o + part * d, splits * d, parts.lse + part, splits);
  }
  MergeArgs merging;
  merging.rows = static_cast<int64_t>(rows) * a.heads.heads;
  merging.parts = splits;
  merging.d = d;
  merging.part_o = parts.o;
  merging.part_lse = parts.lse;
  merging.o = a.o;
  if (a.mass != nullptr) merging.lse = parts.merged_lse;
  merge(merging);
  for (int64_t row = 0; a.mass != nullptr && row < merging.rows; ++row) {
    float* mass = a.mass->rows[row / a.heads.heads];
    if (mass == nullptr) continue;
    const int64_t groups = a.mass->groups(a.sets[row / a.heads.heads]->size);
    finish_mass(parts.merged_lse[row], groups, mass + row % a.heads.heads * groups);
  }
}

}  // namespace bough::cpu
