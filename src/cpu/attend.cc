// One item is one query block and one KV head: 64 rows x G heads against every key of the context, gathered, turned and packed once.
// Keys are taken 256 at a time; for 24 or 32 rows at a time their scores, weights and products stay in the first-level cache.
#include "steps/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/mass.h"
#include "cpu/scratch.h"

namespace bough::cpu {
namespace {

constexpr int kGroupKeys = 256;

struct Workspace {
  std::byte* q;        // [rows, d] elements
  std::byte* k_tiles;  // of kGroupKeys keys
  std::byte* v_tiles;
  float* s;      // [pass_rows, kGroupKeys]
  std::byte* p;  // [pass_rows, kGroupKeys] elements
  float* o;      // [rows, padded(d)]
  float* m;      // [rows]
  float* l;
  float* alpha;
  int* hidden;
  int* visible;
  float* turned;  // [d]
  float* angles;  // cos then sin [pairs][32]

  static Workspace carve(const TileOps& ops, int64_t rows, int d, Carver& carver) {
    Workspace w{};
    w.q = carver.bytes(static_cast<size_t>(rows * d) * ops.elem);
    w.k_tiles = carver.bytes(ops.k_tile_bytes(d) * (kGroupKeys / kTileKeys));
    w.v_tiles = carver.bytes(ops.v_tile_bytes(d) * (kGroupKeys / kTileKeys));
    w.s = carver.take<float>(int64_t{ops.pass_rows} * kGroupKeys);
    w.p = carver.bytes(static_cast<size_t>(ops.pass_rows * kGroupKeys) * ops.elem);
    w.o = carver.take<float>(rows * padded(d));
    w.m = carver.take<float>(rows);
    w.l = carver.take<float>(rows);
    w.alpha = carver.take<float>(rows);
    w.hidden = carver.take<int>(rows);
    w.visible = carver.take<int>(rows);
    w.turned = carver.take<float>(d);
    w.angles = carver.take<float>(static_cast<int64_t>(d) * kTileKeys);
    return w;
  }
};

// Rows are ordered query head first: row g * block.rows + i is head kv_head * G + g of block row i.
class BlockAttend {
 public:
  BlockAttend(const TileOps& ops, const AttendArgs& args, int64_t index, int kv_head, const Workspace& w)
      : ops_(ops),
        a_(args),
        w_(w),
        block_(args.batch->blocks[static_cast<size_t>(index)]),
        pages_(args.batch->sequences[static_cast<size_t>(block_.seq)]),
        context_(context_of(args.lists, block_, index, kv_head)),
        positions_(args.positions, context_, block_.r0),
        size_(context_.size()),
        kv_head_(kv_head),
        rows_(block_.rows * args.heads.group()) {}  // NOLINT(clang-analyzer-optin.cplusplus.UninitializedObject): positions_ has its own

  void run() {
    pack_queries();
    std::fill_n(w_.o, static_cast<int64_t>(rows_) * padded(a_.heads.head_dim), 0.0F);
    std::fill_n(w_.m, rows_, -std::numeric_limits<float>::infinity());
    std::fill_n(w_.l, rows_, 0.0F);
    for (int64_t rank = 0; rank < size_; rank += kGroupKeys) {
      const int tiles = static_cast<int>((std::min<int64_t>(kGroupKeys, size_ - rank) + kTileKeys - 1) / kTileKeys);
      pack_group(rank, tiles);
      for (int r = 0; r < rows_; r += ops_.pass_rows) attend_rows(rank, tiles, r, std::min(ops_.pass_rows, rows_ - r));
    }
    store();
  }

 private:
  int64_t output_row(int r) const {
    return static_cast<int64_t>(block_.row + r % block_.rows) * a_.heads.heads + kv_head_ * a_.heads.group() + r / block_.rows;
  }
  int64_t rank_of(int r) const { return size_ - block_.rows + r % block_.rows; }

  void pack_queries() {
    const int d = a_.heads.head_dim;
    for (int r = 0; r < rows_; ++r) {
      const float* q = a_.q + output_row(r) * d;
      const int64_t position = positions_.query(block_.r0 + r % block_.rows);
      for (int i = 0; i < d; ++i) w_.turned[i] = q[i] * a_.heads.scale;
      rope_row(w_.turned, a_.rope->cos_row(position), a_.rope->sin_row(position), a_.rope->params(), d, w_.turned);
      ops_.pack_rows(w_.turned, d, a_.kv.type, w_.q + static_cast<size_t>(r) * static_cast<size_t>(d) * ops_.elem);
    }
  }

  void pack_group(int64_t rank, int tiles) {
    const int d = a_.heads.head_dim;
    for (int t = 0; t < tiles; ++t) {
      TileRows rows;
      gather_rows(context_, pages_, a_.kv, a_.layer, kv_head_, rank + t * kTileKeys, rows);
      const float* cos = a_.rope->cos_tile(rank / kTileKeys + t);
      const float* sin = a_.rope->sin_tile(rank / kTileKeys + t);
      if (!positions_.by_rank()) {
        gather_key_angles(positions_, *a_.rope, rank + t * kTileKeys, size_, w_.angles);
        cos = w_.angles;
        sin = w_.angles + static_cast<ptrdiff_t>(a_.rope->pairs()) * kTileKeys;
      }
      ops_.pack_keys(rows.k, a_.kv.type, d, a_.rope->params(), cos, sin, w_.k_tiles + static_cast<size_t>(t) * ops_.k_tile_bytes(d));
      ops_.pack_values(rows.v, a_.kv.type, d, w_.v_tiles + static_cast<size_t>(t) * ops_.v_tile_bytes(d));
    }
  }

  void attend_rows(int64_t rank, int tiles, int first, int count) {
    const int d = a_.heads.head_dim;
    const int keys = tiles * kTileKeys;
    const std::byte* q = w_.q + static_cast<size_t>(first) * static_cast<size_t>(d) * ops_.elem;
    for (int t = 0; t < tiles; ++t) {
      ops_.scores(q, count, d, w_.k_tiles + static_cast<size_t>(t) * ops_.k_tile_bytes(d), w_.s + t * kTileKeys, kGroupKeys);
    }
    if (a_.heads.softcap > 0) ops_.softcap(w_.s, kGroupKeys, count, keys, a_.heads.softcap);
    const int64_t window = a_.window > 0 ? a_.window : size_;
    for (int r = 0; r < count; ++r) {
      const int64_t end = rank_of(first + r) + 1 - rank;
      w_.visible[r] = static_cast<int>(std::clamp<int64_t>(end, 0, keys));
      w_.hidden[r] = static_cast<int>(std::clamp<int64_t>(end - window, 0, keys));
    }
    ops_.softmax(w_.s, kGroupKeys, count, keys, a_.window > 0 ? w_.hidden : nullptr, w_.visible, w_.m + first, w_.l + first, w_.alpha,
                 w_.p);
    if (a_.mass != nullptr) note_mass(rank, keys, first, count);
    ops_.accumulate(w_.p, count, keys, w_.v_tiles, d, w_.alpha, w_.o + static_cast<int64_t>(first) * padded(d));
  }

  // Where the mass of row r and its head goes; null when the row is not watched.
  float* mass_of(int r) const {
    float* row = a_.mass->rows[block_.row + r % block_.rows];
    const int head = kv_head_ * a_.heads.group() + r / block_.rows;
    return row == nullptr ? nullptr : row + head * a_.mass->groups(size_);
  }

  void note_mass(int64_t rank, int keys, int first, int count) {
    for (int r = 0; r < count; ++r) {
      float* logs = mass_of(first + r);
      if (logs == nullptr) continue;
      const std::byte* weights = w_.p + static_cast<size_t>(r) * static_cast<size_t>(keys) * ops_.elem;
      log_mass(*a_.mass, weights, ops_.elem, rank, keys, w_.m[first + r], a_.mass->groups(size_), logs);
    }
  }

  void store() {
    const int d = a_.heads.head_dim;
    for (int r = 0; r < rows_; ++r) {
      const float scale = w_.l[r] > 0 ? 1.0F / w_.l[r] : 0.0F;
      const float* o = w_.o + static_cast<int64_t>(r) * padded(d);
      float* out = a_.o + output_row(r) * d;
      for (int i = 0; i < d; ++i) out[i] = o[i] * scale;
      const float lse = w_.m[r] + std::log(w_.l[r]);
      if (a_.lse != nullptr) a_.lse[output_row(r)] = lse;
      if (a_.mass == nullptr) continue;
      if (float* logs = mass_of(r)) finish_mass(lse, a_.mass->groups(size_), logs);
    }
  }

  const TileOps& ops_;
  const AttendArgs& a_;
  const Workspace& w_;
  const QueryBlock& block_;
  PageTable pages_;
  Context context_;
  ContextPositions positions_;
  int64_t size_;
  int kv_head_;
  int rows_;
};

}  // namespace

void attend(const TileOps& ops, const AttendArgs& a) {
  int64_t most_rows = 1;
  const auto blocks = static_cast<int64_t>(a.batch->blocks.size());
  if (a.first_block >= blocks) return;
  for (int64_t b = a.first_block; b < blocks; ++b) {
    most_rows = std::max<int64_t>(most_rows, static_cast<int64_t>(a.batch->blocks[static_cast<size_t>(b)].rows) * a.heads.group());
  }
  Carver sizes(nullptr);
  Workspace::carve(ops, most_rows, a.heads.head_dim, sizes);
  const Scratch scratch(sizes.used());
#pragma omp parallel for schedule(dynamic)
  for (int64_t item = a.first_block * a.heads.kv_heads; item < blocks * a.heads.kv_heads; ++item) {
    Carver carver(scratch.mine());
    const Workspace w = Workspace::carve(ops, most_rows, a.heads.head_dim, carver);
    const TileScope scope(ops);
    BlockAttend(ops, a, item / a.heads.kv_heads, static_cast<int>(item % a.heads.kv_heads), w).run();
  }
}

}  // namespace bough::cpu
