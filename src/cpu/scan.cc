// Candidates go through the descent in groups of eight tiles of 32: while one tile's keys are multiplied, the next round's keys of the
// tiles before it are on their way from memory. The last round, of intervals of one key, scores that key from both sides; the round
// before has already done it from the side that won, so only the other side is computed.
#include "steps/scan.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/scratch.h"
#include "cpu/search.h"

namespace bough::cpu {
namespace {

constexpr int kGroup = 8 * kTileKeys;     // lanes that descend together
constexpr int kFewGroup = 2 * kTileKeys;  // with few rows: what was fetched ahead must still be in the first-level cache
constexpr int kItemsPerThread = 8;        // at least, where there is enough to do
constexpr int kFewRows = 16;              // pooled rows of a group's heads: decode and the tail of a prompt

struct Item {
  int64_t block;
  int kv_head;
  int64_t begin;  // candidates [begin, end); begin is a multiple of 32
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
        positions_(args.scan, block_, args.candidates.count[item.block], args.scan_window, args.trained_context) {
    if (args.summaries != nullptr) summary_ = args.summaries[block_.seq];
  }

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

  // The first keys of the group that begins at candidate j, if the item has one there.
  void prefetch_first_round(int64_t j) const {
    const int chunk = a_.candidates.chunk;
    for (const int64_t end = std::min<int64_t>(j + group(), item_.end); j < end; ++j) {
      if (summary_ != nullptr && j < summary_->chunks) {
        prefetch_row(summary_->key(item_.kv_head, j, 0), summary_->row_bytes());
        prefetch_row(summary_->key(item_.kv_head, j, 1), summary_->row_bytes());
        continue;
      }
      const int64_t l = a_.candidates.at(item_.block, item_.kv_head, j);
      prefetch_token(pages_, a_.kv, plane_, l + chunk / 4);
      prefetch_token(pages_, a_.kv, plane_, l + chunk / 2 + chunk / 4);
    }
  }

  // Angles of the keys at first[i] + offset, of candidates j + i; j is a multiple of 32.
  void angles(const int32_t* first, int offset, int lanes, int64_t j, const float** cos, const float** sin) {
    if (!positions_.turns_keys()) return;
    if (positions_.numbered()) {
      *cos = a_.rope->cos_tile(j / kTileKeys);
      *sin = a_.rope->sin_tile(j / kTileKeys);
      return;
    }
    int64_t at[kTileKeys];
    for (int i = 0; i < lanes; ++i) at[i] = positions_.key(first[i] + offset, j + i);
    gather_angles(*a_.rope, at, lanes, w_.angles);
    *cos = w_.angles;
    *sin = w_.angles + static_cast<ptrdiff_t>(a_.rope->pairs()) * kTileKeys;
  }

  // Scores of the keys in w_.tile, one a lane.
  void score(const std::byte* rows, float* best) const {
    std::fill_n(best, kTileKeys, -std::numeric_limits<float>::infinity());
    ops_.max_scores(rows, 1, rows_, a_.heads.head_dim, w_.tile, best);
  }

  // Scores of 32 keys of `type`, null beyond the last lane.
  void score_keys(const std::byte* const* keys, DType type, const float* cos, const float* sin, const std::byte* rows, float* best) const {
    ops_.pack_keys(keys, type, a_.heads.head_dim, a_.rope->params(), cos, sin, w_.tile);
    score(rows, best);
  }

  // Are the keys of the tile at lane t taken from the summary in rounds of intervals of n?
  bool summarised(int t, int n) const {
    return summary_ != nullptr && j_ + std::min(t + kTileKeys, count_) <= summary_->chunks && n << summary_->rounds > a_.candidates.chunk;
  }

  void aim_at_summary(int t, int n) {
    const int round = std::countr_zero(static_cast<unsigned>(a_.candidates.chunk / n));
    const size_t bytes = summary_->row_bytes();
    for (int i = t; i < std::min(t + kTileKeys, count_); ++i) {
      const auto from = static_cast<int>(l_[i] - a_.candidates.at(item_.block, item_.kv_head, j_ + i));
      left_[i] = summary_->key(item_.kv_head, j_ + i, summary_node(round, from / n, 0));
      right_[i] = summary_->key(item_.kv_head, j_ + i, summary_node(round, from / n, 1));
      prefetch_row(left_[i], bytes);
      prefetch_row(right_[i], bytes);
    }
  }

  // Sends for a tile's two keys of the round of intervals [l, l + n).
  void aim(int t, int n) {
    if (summarised(t, n)) return aim_at_summary(t, n);
    const auto bytes = static_cast<ptrdiff_t>(a_.kv.row_bytes());
    const int end = std::min(t + kTileKeys, count_);
    const bool may_have_moved = n >= kPageTokens || summarised(t, 2 * n);  // to another page
    for (int i = t; i < end && may_have_moved; ++i) first_[i] = key(l_[i]);
    const ptrdiff_t left = n / 4 * bytes;
    const ptrdiff_t right = (n / 2 + n / 4) * bytes;
    for (int i = t; i < end; ++i) {
      left_[i] = n <= kPageTokens ? first_[i] + left : key(l_[i] + n / 4);
      right_[i] = n <= kPageTokens ? first_[i] + right : key(l_[i] + n / 2 + n / 4);
      prefetch_row(left_[i], a_.kv.row_bytes());
      if (n > 1) prefetch_row(right_[i], a_.kv.row_bytes());
    }
  }

  // One round of the tile that begins at lane t, for intervals [l, l + n). `more`: another one follows.
  void round(int t, int n, bool more) {
    const DType type = summarised(t, n) ? summary_->type : a_.kv.type;
    const int lanes = std::min(kTileKeys, count_ - t);
    float sa[kTileKeys];
    float sz[kTileKeys];
    const float* cos = nullptr;
    const float* sin = nullptr;
    angles(l_ + t, n / 4, lanes, j_ + t, &cos, &sin);
    score_keys(left_ + t, type, cos, sin, positions_.two_sided() ? w_.left : w_.right, sa);
    if (n > 1) {
      angles(l_ + t, n / 2 + n / 4, lanes, j_ + t, &cos, &sin);
      score_keys(right_ + t, type, cos, sin, w_.right, sz);
    } else {
      score(w_.right, sz);  // both candidates are the key that the tile holds
    }
    const ptrdiff_t half = n / 2 * static_cast<ptrdiff_t>(a_.kv.row_bytes());
    for (int i = 0; i < kTileKeys; ++i) {
      const float high = sa[i] < sz[i] ? sz[i] : sa[i];
      best_[t + i] = best_[t + i] < high ? high : best_[t + i];
      went_right_[t + i] = sa[i] > sz[i] ? 0 : 1;
      l_[t + i] += went_right_[t + i] * (n / 2);
      first_[t + i] += went_right_[t + i] * half;
    }
    if (more) aim(t, n / 2);
  }

  // The last round of a relative scan: lanes that went one way, gathered, from the other side.
  void other_side(int side, const std::byte* rows) {
    int lane[kTileKeys];
    const std::byte* keys[kTileKeys] = {};
    float s[kTileKeys];
    int n = 0;
    for (int i = 0; i < count_; ++i) {
      if (went_right_[i] == side) {
        lane[n] = i;
        keys[n++] = key(l_[i]);
      }
      if (n < kTileKeys && (i + 1 < count_ || n == 0)) continue;
      score_keys(keys, a_.kv.type, nullptr, nullptr, rows, s);
      for (int k = 0; k < n; ++k) best_[lane[k]] = std::max(best_[lane[k]], s[k]);
      n = 0;
      std::fill_n(keys, kTileKeys, nullptr);
    }
  }

  void run_group(int64_t j, int count) {
    const int chunk = a_.candidates.chunk;
    j_ = j;
    count_ = count;
    for (int i = 0; i < count; ++i) l_[i] = static_cast<int32_t>(a_.candidates.at(item_.block, item_.kv_head, j + i));
    const int whole = (count + kTileKeys - 1) / kTileKeys * kTileKeys;
    std::fill(l_ + count, l_ + whole, 0);
    for (int i = 0; i < whole; ++i) first_[i] = key(l_[i]);
    std::fill(left_ + count, left_ + whole, nullptr);
    std::fill(right_ + count, right_ + whole, nullptr);
    std::fill_n(best_, whole, -std::numeric_limits<float>::infinity());
    for (int t = 0; t < count; t += kTileKeys) aim(t, chunk);
    const int widths = std::countr_zero(static_cast<unsigned>(chunk));  // of more than one key
    for (int i = 0; i < std::min(a_.rounds, std::max(widths, 1)); ++i) {
      for (int t = 0; t < count; t += kTileKeys) round(t, chunk >> i, i + 1 < a_.rounds && i < widths);
    }
    prefetch_first_round(j + group());
    if (chunk > 1 && a_.rounds > widths && positions_.two_sided()) {
      other_side(1, w_.left);
      other_side(0, w_.right);
    }
    float* out = a_.scores + (item_.block * a_.heads.kv_heads + item_.kv_head) * a_.score_capacity;
    std::copy_n(best_, count, out + j);
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
  const KeySummary* summary_ = nullptr;  // of the first rounds, or null
  // The group that descends: candidates [j_, j_ + count_).
  int64_t j_ = 0;
  int count_ = 0;
  int32_t l_[kGroup];               // where each lane's interval begins
  const std::byte* first_[kGroup];  // the key there
  int32_t went_right_[kGroup];
  float best_[kGroup];
  const std::byte* left_[kGroup];  // the keys of each lane's next round
  const std::byte* right_[kGroup];
};

}  // namespace

void scan(const TileOps& ops, const ScanArgs& a) {
  if (a.piece > 0) return scan_pieces(ops, a);
  std::vector<Item> items;
  int64_t most_rows = 1;
  int64_t most = 0;
  int64_t all = 0;
  int blocks = 0;
  for (size_t b = 0; b < a.batch->blocks.size(); ++b) {
    if (a.active[b] == 0) continue;
    most_rows = std::max<int64_t>(most_rows, pooled_rows(a.batch->blocks[b], a.query_stride, a.pool) * a.heads.group());
    most = std::max<int64_t>(most, a.candidates.count[b]);
    all += int64_t{a.candidates.count[b]} * a.heads.kv_heads;
    ++blocks;
  }
  // What one block has fetched is still in the second-level cache when the next one comes.
  const int64_t longest = most_rows > kFewRows ? kGroup : blocks > 1 ? 2 * kFewGroup : 8 * kFewGroup;
  const int64_t even = all / (kItemsPerThread * omp_get_max_threads());
  const int64_t range = std::clamp((even + kFewGroup - 1) / kFewGroup * kFewGroup, int64_t{2 * kFewGroup}, longest);
  for (int h = 0; h < a.heads.kv_heads; ++h) {
    for (int64_t j = 0; j < most; j += range) {  // all blocks go through a range while its keys are in the cache
      for (size_t b = 0; b < a.batch->blocks.size(); ++b) {
        if (a.active[b] == 0 || j >= a.candidates.count[b]) continue;
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
    const TileScope scope(ops);
    BlockScan(ops, a, item, w).run();
  }
}

}  // namespace bough::cpu
