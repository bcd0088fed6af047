// Candidates go through the descent in groups of eight tiles of 32: while one tile's keys are multiplied, the next round's keys of the
// tiles before it are on their way from memory. The last round, of intervals of one key, scores that key from both sides; the round
// before has already done it from the side that won, so only the other side is computed.
#include "steps/scan.h"

#include <algorithm>
#include <limits>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/scratch.h"
#include "cpu/search.h"

namespace bough::cpu {
namespace {

constexpr int kGroup = 8 * kTileKeys;     // lanes that descend together
constexpr int kFewGroup = 2 * kTileKeys;  // with few rows: what was fetched ahead must still be in the first-level cache
constexpr int kFewRows = 16;              // pooled rows of a group's heads: decode and the tail of a prompt

struct Item {
  int64_t block;
  int kv_head;
  int64_t begin;  // candidates [begin, end); begin is a multiple of kGroup
  int64_t end;
};

// What one thread works in.
struct Workspace {
  float* pooled;     // [rows, d]
  std::byte* left;   // rows rotated for the left candidate
  std::byte* right;  // and for the right one
  std::byte* tile;   // K tile
  float* angles;     // cos then sin [d/2][32], for keys at positions of their own

  static Workspace carve(const TileOps& ops, int64_t rows, int d, Carver& carver) {
    Workspace w{};
    w.pooled = carver.take<float>(rows * d);
    w.left = carver.bytes(static_cast<size_t>(rows * d) * ops.elem);
    w.right = carver.bytes(static_cast<size_t>(rows * d) * ops.elem);
    w.tile = carver.bytes(ops.k_tile_bytes(d));
    w.angles = carver.take<float>(static_cast<int64_t>(d) * kTileKeys);
    return w;
  }
};

class BlockScan {
 public:
  BlockScan(const TileOps& ops, const ScanArgs& args, const Item& item, const Workspace& w)
      : ops_(ops),
        a_(args),
        item_(item),
        w_(w),
        block_(args.batch->blocks[static_cast<size_t>(item.block)]),
        pages_(args.batch->sequences[static_cast<size_t>(block_.seq)]),
        plane_(args.kv.k_offset(args.layer, item.kv_head)),
        positions_(args.scan, block_, args.candidates.count[item.block], args.scan_window, args.trained_context) {}

  void run() {
    pack_queries();
    prefetch_first_round(item_.begin);
    for (int64_t j = item_.begin; j < item_.end; j += group()) run_group(j, static_cast<int>(std::min<int64_t>(group(), item_.end - j)));
  }

 private:
  int group() const { return rows_ <= kFewRows ? kFewGroup : kGroup; }

  void pack_queries() {
    const SearchRows rows{&block_, a_.heads, item_.kv_head, a_.query_stride, a_.pool, a_.rope, a_.kv.type};
    rows_ = rows.count();
    rows.pool_into(a_.q, w_.pooled);
    rows.pack(ops_, w_.pooled, positions_, 0, w_.angles, w_.right);
    if (positions_.two_sided()) rows.pack(ops_, w_.pooled, positions_, 1, w_.angles, w_.left);
  }

  const std::byte* key(int64_t token) const { return pages_.row(token, plane_, a_.kv.row_bytes()); }

  void prefetch(int64_t token) const { prefetch_row(key(token), a_.kv.row_bytes()); }

  // The first keys of the group that begins at candidate j, if the item has one there.
  void prefetch_first_round(int64_t j) const {
    const int chunk = a_.candidates.chunk;
    for (const int64_t end = std::min<int64_t>(j + group(), item_.end); j < end; ++j) {
      const int64_t l = a_.candidates.at(item_.block, item_.kv_head, j);
      prefetch(l + chunk / 4);
      prefetch(l + chunk / 2 + chunk / 4);
    }
  }

  // Angles of up to 32 tokens, of candidates j, j + 1, ...; j is a multiple of 32.
  void angles(const int64_t* tokens, int lanes, int64_t j, const float** cos, const float** sin) {
    if (!positions_.turns_keys()) return;
    if (positions_.numbered()) {
      *cos = a_.rope->cos_tile(j / kTileKeys);
      *sin = a_.rope->sin_tile(j / kTileKeys);
      return;
    }
    int64_t at[kTileKeys];
    for (int i = 0; i < lanes; ++i) at[i] = positions_.key(tokens[i], j + i);
    gather_angles(*a_.rope, at, lanes, w_.angles);
    *cos = w_.angles;
    *sin = w_.angles + static_cast<ptrdiff_t>(a_.rope->pairs()) * kTileKeys;
  }

  // Scores of 32 tokens, one a lane. New keys are packed unless the tile already holds them.
  void score(const int64_t* tokens, int lanes, int64_t j, bool pack, const std::byte* rows, float* best) {
    if (pack) {
      const std::byte* keys[kTileKeys] = {};
      for (int i = 0; i < lanes; ++i) keys[i] = key(tokens[i]);
      const float* cos = nullptr;
      const float* sin = nullptr;
      angles(tokens, lanes, j, &cos, &sin);
      ops_.pack_keys(keys, a_.kv.type, a_.heads.head_dim, a_.rope->params(), cos, sin, w_.tile);
    }
    std::fill_n(best, kTileKeys, -std::numeric_limits<float>::infinity());
    ops_.max_scores(rows, rows_, a_.heads.head_dim, w_.tile, best);
  }

  // One round of one tile: n is the length of the intervals [l, l + n). went_right: which half each lane keeps.
  void round(int64_t j, int lanes, int n, int64_t* l, bool* went_right, float* best) {
    int64_t a[kTileKeys];
    int64_t z[kTileKeys];
    float sa[kTileKeys];
    float sz[kTileKeys];
    for (int i = 0; i < lanes; ++i) {
      a[i] = l[i] + n / 4;
      z[i] = l[i] + n / 2 + n / 4;
    }
    score(a, lanes, j, true, positions_.two_sided() ? w_.left : w_.right, sa);
    score(z, lanes, j, n > 1, w_.right, sz);  // an interval of one key: both candidates are that key
    for (int i = 0; i < lanes; ++i) {
      best[i] = std::max(best[i], std::max(sa[i], sz[i]));
      went_right[i] = !(sa[i] > sz[i]);
      if (went_right[i]) l[i] += n / 2;
      if (n > 1) prefetch(l[i] + n / 8);
      if (n > 3) prefetch(l[i] + n / 4 + n / 8);
    }
  }

  // The last round of a relative scan: lanes that went one way, gathered, from the other side.
  void other_side(int count, const int64_t* l, const bool* went_right, bool side, const std::byte* rows, float* best) {
    int lane[kTileKeys];
    int64_t token[kTileKeys];
    float s[kTileKeys];
    int n = 0;
    for (int i = 0; i < count; ++i) {
      if (went_right[i] == side) {
        lane[n] = i;
        token[n++] = l[i];
      }
      if (n < kTileKeys && (i + 1 < count || n == 0)) continue;
      score(token, n, 0, true, rows, s);
      for (int k = 0; k < n; ++k) best[lane[k]] = std::max(best[lane[k]], s[k]);
      n = 0;
    }
  }

  void run_group(int64_t j, int count) {
    int64_t l[kGroup];
    bool went_right[kGroup];
    float best[kGroup];
    const int chunk = a_.candidates.chunk;
    for (int i = 0; i < count; ++i) l[i] = a_.candidates.at(item_.block, item_.kv_head, j + i);
    std::fill_n(best, count, -std::numeric_limits<float>::infinity());
    for (int n = chunk; n > 1 || n == chunk; n /= 2) {
      for (int t = 0; t < count; t += kTileKeys) round(j + t, std::min(kTileKeys, count - t), n, l + t, went_right + t, best + t);
      if (n == 1) break;
    }
    prefetch_first_round(j + group());
    if (chunk > 1 && positions_.two_sided()) {
      other_side(count, l, went_right, true, w_.left, best);
      other_side(count, l, went_right, false, w_.right, best);
    }
    float* out = a_.scores + (item_.block * a_.heads.kv_heads + item_.kv_head) * a_.score_capacity;
    std::copy_n(best, count, out + j);
  }

  const TileOps& ops_;
  const ScanArgs& a_;
  const Item& item_;
  const Workspace& w_;
  const QueryBlock& block_;
  PageTable pages_;
  size_t plane_;
  ScanPositions positions_;
  int rows_ = 0;
};

}  // namespace

void scan(const TileOps& ops, const ScanArgs& a) {
  std::vector<Item> items;
  int64_t most_rows = 1;
  for (size_t b = 0; b < a.batch->blocks.size(); ++b) {
    if (a.active[b] == 0) continue;
    const int rows = pooled_rows(a.batch->blocks[b], a.query_stride, a.pool) * a.heads.group();
    const int64_t range = rows <= kFewRows ? 2 * kGroup : 8 * kGroup;
    most_rows = std::max<int64_t>(most_rows, rows);
    for (int h = 0; h < a.heads.kv_heads; ++h) {
      for (int64_t j = 0; j < a.candidates.count[b]; j += range) {
        items.push_back({static_cast<int64_t>(b), h, j, std::min<int64_t>(j + range, a.candidates.count[b])});
      }
    }
  }
  Carver sizes(nullptr);
  Workspace::carve(ops, most_rows, a.heads.head_dim, sizes);
  const Scratch scratch(sizes.used());
#pragma omp parallel for schedule(dynamic)
  for (const Item& item : items) {
    Carver carver(scratch.mine());
    const Workspace w = Workspace::carve(ops, most_rows, a.heads.head_dim, carver);
    BlockScan(ops, a, item, w).run();
  }
}

}  // namespace bough::cpu
