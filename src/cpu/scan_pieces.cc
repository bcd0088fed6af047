// Scans without a descent: a tile is one piece of 32 candidates. On a grid the candidates of all blocks are the same, so a tile is packed
// once for several blocks; the next one's keys, side by side in the summary or in a page, are on their way meanwhile. A row that shares its
// candidates with no other, of decode or in the later stages of a prompt's tail, scores keys that are not turned where they lie.
#include <omp.h>

#include <algorithm>
#include <limits>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/row_scores.h"
#include "cpu/scratch.h"
#include "cpu/search.h"
#include "steps/convert.h"
#include "steps/scan.h"

namespace bough::cpu {
namespace {

constexpr int kBlocks = 64;         // that share a tile
constexpr int kItemsPerThread = 8;  // at least, where there is enough to do
constexpr int kTogether = 4;        // keys that few rows score at once
constexpr int kAhead = 32;          // keys behind them that are fetched meanwhile
constexpr int kFewRows = 8;         // heads of a group for whose single rows a tile is not worth packing

// An active block, and where its packed rows lie.
struct Piecewise {
  int64_t index = 0;
  SearchRows rows;
  ScanPositions positions;
  bool by_rows = false;   // scored where keys lie, alone in its item
  int64_t first_row = 0;  // among the packed rows of one KV head, of blocks that are scored alike
  const KeySummary* summary = nullptr;
};

// Blocks [first, end) of the active ones, candidates [from, to) of one KV head.
struct Item {
  size_t first;
  size_t end;
  int head;
  int64_t from;
  int64_t to;
};

struct Workspace {
  std::byte* tile;
  std::byte* means;  // [32][nodes] rows where a summary lacks them
  float* angles;     // cos then sin [d/2][32]
  float* pooled;     // [rows, d]
  float* best;       // [kBlocks][32]

  static Workspace carve(const TileOps& ops, int64_t rows, int d, int nodes, Carver& carver) {
    Workspace w{};
    w.tile = carver.bytes(ops.k_tile_bytes(d));
    w.means = carver.bytes(static_cast<size_t>(nodes * kTileKeys * d) * sizeof(float));
    w.angles = carver.take<float>(int64_t{2} * d * kTileKeys);
    w.pooled = carver.take<float>(rows * d);
    w.best = carver.take<float>(kBlocks * kTileKeys);
    return w;
  }
};

class PieceScan {
 public:
  PieceScan(const TileOps& ops, const ScanArgs& a)
      : ops_(ops),
        a_(a),
        d_(a.heads.head_dim),
        key_type_(a.piece == 1 ? a.kv.type : mean_type(a.kv.type)),
        row_bytes_(kv_row_bytes(key_type_, d_)),
        nodes_(a.candidates.chunk / a.piece),
        in_a_row_(a.piece > 1 || a.candidates.chunk <= kPageTokens) {
    for (size_t b = 0; b < a.batch->blocks.size(); ++b) {
      if (a.active[b] == 0) continue;
      const QueryBlock& block = a.batch->blocks[b];
      Piecewise p{.index = static_cast<int64_t>(b),
                  .rows = {&block, a.heads, 0, a.query_stride, a.pool, a.rope, a.kv.type},
                  .positions = ScanPositions(a.scan, block, a.candidates.count[b], a.scan_window, a.trained_context)};
      const bool lone = block.rows == 1 && (static_cast<int64_t>(b) < a.batch->decode_rows || a.candidates.start != nullptr);
      p.by_rows = lone && in_a_row_ && row_ops_ != nullptr && row_ops_->fits(d_, key_type_) && !p.positions.turns_keys() &&
                  p.rows.count() <= kFewRows;
      if (a.summaries != nullptr) p.summary = a.summaries[block.seq];
      int64_t& rows = p.by_rows ? lone_rows_ : rows_;
      p.first_row = rows;
      rows += p.rows.count();
      most_rows_ = std::max<int64_t>(most_rows_, p.rows.count());
      blocks_.push_back(p);
    }
  }

  void run() {
    const std::vector<Item> items = cut();
    Carver sizes(nullptr);
    Workspace::carve(ops_, most_rows_, d_, averaged(), sizes);
    const auto lone_bytes = (static_cast<size_t>(lone_rows_ * a_.heads.kv_heads * d_) * sizeof(float) + 63) / 64 * 64;
    const Scratch scratch(sizes.used(), lone_bytes + static_cast<size_t>(rows_ * a_.heads.kv_heads * d_) * ops_.elem);
    ordered_ = reinterpret_cast<float*>(scratch.shared());
    packed_ = scratch.shared() + lone_bytes;
#pragma omp parallel
    {
      Carver carver(scratch.mine());
      const Workspace w = Workspace::carve(ops_, most_rows_, d_, averaged(), carver);
#pragma omp for schedule(dynamic) collapse(2)
      for (size_t b = 0; b < blocks_.size(); ++b) {
        for (int h = 0; h < a_.heads.kv_heads; ++h) pack_rows(blocks_[b], h, w);
      }
#pragma omp for schedule(dynamic)
      for (const Item& item : items) {
        const TileScope scope(ops_);
        blocks_[item.first].by_rows ? scan_rows(item, w) : scan_tiles(item, w);
      }
    }
  }

 private:
  int64_t count(const Piecewise& p) const { return a_.candidates.count[p.index]; }
  std::byte* rows_of(const Piecewise& p, int head) const {
    return packed_ + static_cast<size_t>((head * rows_ + p.first_row) * d_) * ops_.elem;
  }

  float* ordered_rows_of(const Piecewise& p, int head) const { return ordered_ + (head * lone_rows_ + p.first_row) * d_; }

  void pack_rows(const Piecewise& p, int head, const Workspace& w) const {
    SearchRows rows = p.rows;
    rows.kv_head = head;
    rows.pool_into(a_.q, w.pooled);
    if (p.by_rows) {
      for (int r = 0; r < rows.count(); ++r) rows.turn(w.pooled, r, p.positions, 0, w.pooled + int64_t{r} * d_);
      std::transform(w.pooled, w.pooled + rows.count() * d_, w.pooled, [&](float x) { return rounded(x, a_.kv.type); });
      row_ops_->order(w.pooled, rows.count(), d_, key_type_, ordered_rows_of(p, head));
      return;
    }
    rows.pack(ops_, w.pooled, p.positions, 0, w.angles, rows_of(p, head));
  }

  // Whether two blocks have the same candidates at the same positions.
  bool share(const Piecewise& x, const Piecewise& y) const {
    return a_.candidates.start == nullptr && !x.by_rows && !y.by_rows && x.rows.block->seq == y.rows.block->seq &&
           x.positions.same_keys(y.positions);
  }

  std::vector<Item> cut() const {
    std::vector<Item> groups;
    int64_t all = 0;
    for (size_t b = 0; b < blocks_.size();) {
      size_t end = b + 1;
      int64_t most = count(blocks_[b]);
      for (; end < blocks_.size() && end - b < kBlocks && share(blocks_[b], blocks_[end]); ++end)
        most = std::max(most, count(blocks_[end]));
      groups.push_back({b, end, 0, 0, most});
      all += most * a_.heads.kv_heads;
      b = end;
    }
    const int64_t even = all / (int64_t{kItemsPerThread} * omp_get_max_threads());
    const int64_t range = std::clamp<int64_t>((even + kTileKeys - 1) / kTileKeys * kTileKeys, kTileKeys, 32 * kTileKeys);
    std::vector<Item> items;
    for (const Item& group : groups) {
      for (int h = 0; h < a_.heads.kv_heads; ++h) {
        for (int64_t j = 0; j < group.to; j += range) items.push_back({group.first, group.end, h, j, std::min(j + range, group.to)});
      }
    }
    return items;
  }

  int averaged() const { return a_.piece > 1 ? nodes_ : 0; }
  static bool summarised(const Piecewise& p, int64_t token) { return p.summary != nullptr && p.summary->has_mean(token); }
  std::byte* mean(std::byte* means, int lane) const { return means + static_cast<size_t>(lane * nodes_) * row_bytes_; }

  // The means of all pieces of candidates [j, j + lanes) that the summary lacks.
  void average(const Piecewise& p, int head, int64_t j, int lanes, std::byte* means) const {
    KeyMeansArgs m{a_.kv, a_.batch->sequences[static_cast<size_t>(p.rows.block->seq)], a_.kv.k_offset(a_.layer, head)};
    m.piece = a_.piece;
    m.count = nodes_;
    m.stride = row_bytes_;
    for (int i = 0; i < lanes; ++i) {
      m.token = a_.candidates.at(p.index, head, j + i);
      if (summarised(p, m.token)) continue;
      m.out = mean(means, i);
      key_means(m);
    }
  }

  // Where the first pieces of candidates [j, j + lanes) lie. The others follow them, since a candidate lies within a page or within a chunk
  // of the summary; but not single keys of a candidate larger than a page.
  struct Places {
    const std::byte* first[kTileKeys] = {};
    int64_t j = 0;
    int lanes = 0;
  };

  Places locate(const Piecewise& p, int head, int64_t j, int64_t to, std::byte* means) const {
    const PageTable& pages = a_.batch->sequences[static_cast<size_t>(p.rows.block->seq)];
    const size_t plane = a_.kv.k_offset(a_.layer, head);
    Places places;
    places.j = j;
    places.lanes = static_cast<int>(std::clamp<int64_t>(to - j, 0, kTileKeys));
    for (int i = 0; i < places.lanes; ++i) {
      const int64_t token = a_.candidates.at(p.index, head, j + i);
      if (a_.piece == 1) {
        places.first[i] = pages.row(token, plane, a_.kv.row_bytes());
      } else {
        places.first[i] = summarised(p, token) ? p.summary->mean(head, token) : mean(means, i);
      }
    }
    return places;
  }

  const std::byte* piece_of(const Piecewise& p, int head, const Places& places, int lane, int node) const {
    if (in_a_row_) return places.first[lane] + static_cast<size_t>(node) * row_bytes_;
    const PageTable& pages = a_.batch->sequences[static_cast<size_t>(p.rows.block->seq)];
    const int64_t token = a_.candidates.at(p.index, head, places.j + lane) + node;
    return pages.row(token, a_.kv.k_offset(a_.layer, head), a_.kv.row_bytes());
  }

  // Keys of piece `node` of those candidates.
  void aim(const Piecewise& p, int head, const Places& places, int node, const std::byte** keys) const {
    for (int i = 0; i < kTileKeys; ++i) keys[i] = i < places.lanes ? piece_of(p, head, places, i, node) : nullptr;
  }

  // cos then sin of where those keys stand.
  void angles(const Piecewise& p, int head, int64_t j, int lanes, int node, float* out) const {
    int64_t at[kTileKeys];
    for (int i = 0; i < lanes; ++i) {
      at[i] = p.positions.key(a_.candidates.at(p.index, head, j + i) + int64_t{node} * a_.piece + a_.piece / 2, j + i);
    }
    gather_angles(*a_.rope, at, lanes, out);
  }

  // A share of what comes next while piece `node` is scored: that piece of all candidates, or of a grid's, whose means lie side by side,
  // all pieces of some.
  void prefetch(const Piecewise& p, int head, const Places& next, int node) const {
    if (a_.piece > 1 && a_.candidates.start == nullptr) {
      const int end = std::min(next.lanes, (node + 1) * kTileKeys / nodes_);
      for (int i = node * kTileKeys / nodes_; i < end; ++i) prefetch_row(next.first[i], static_cast<size_t>(nodes_) * row_bytes_);
      return;
    }
    for (int i = 0; i < next.lanes; ++i) prefetch_row(piece_of(p, head, next, i, node), row_bytes_);
  }

  // The packed tile against all blocks that have candidate j, those with as many rows together: their rows follow one another.
  void score(const Item& item, int64_t j, const Workspace& w) const {
    for (size_t b = item.first, end = b; b < item.end; b = end) {
      const int rows = blocks_[b].rows.count();
      const auto goes_on = [&] { return end < item.end && blocks_[end].rows.count() == rows && count(blocks_[end]) > j; };
      while (goes_on()) ++end;
      if (end == b) {
        ++end;
        continue;
      }
      ops_.max_scores(rows_of(blocks_[b], item.head), static_cast<int>(end - b), rows, d_, w.tile, w.best + (b - item.first) * kTileKeys);
    }
  }

  void scan_tiles(const Item& item, const Workspace& w) const {
    const Piecewise& longest =
        *std::max_element(blocks_.begin() + static_cast<ptrdiff_t>(item.first), blocks_.begin() + static_cast<ptrdiff_t>(item.end),
                          [&](const Piecewise& x, const Piecewise& y) { return count(x) < count(y); });
    const bool turned = longest.positions.turns_keys(), numbered = longest.positions.numbered();
    const float* cos = turned ? w.angles : nullptr;
    const float* sin = turned ? w.angles + static_cast<ptrdiff_t>(a_.rope->pairs()) * kTileKeys : nullptr;
    const std::byte* keys[kTileKeys];
    Places next = locate(longest, item.head, item.from, item.to, w.means);
    for (int64_t j = item.from; j < item.to; j += kTileKeys) {
      const Places places = next;
      const int lanes = places.lanes;
      next = locate(longest, item.head, j + kTileKeys, item.to, w.means);
      std::fill_n(w.best, (item.end - item.first) * kTileKeys, -std::numeric_limits<float>::infinity());
      if (numbered) {
        cos = a_.rope->cos_tile(j / kTileKeys);
        sin = a_.rope->sin_tile(j / kTileKeys);
      }
      if (a_.piece > 1) average(longest, item.head, j, lanes, w.means);
      for (int node = 0; node < nodes_; ++node) {
        aim(longest, item.head, places, node, keys);
        prefetch(longest, item.head, next, node);
        if (turned && !numbered) angles(longest, item.head, j, lanes, node, w.angles);
        ops_.pack_keys(keys, key_type_, d_, a_.rope->params(), cos, sin, w.tile);
        score(item, j, w);
      }
      for (size_t b = item.first; b < item.end; ++b) {
        const Piecewise& p = blocks_[b];
        const int64_t own = std::min<int64_t>(lanes, count(p) - j);
        if (own > 0) std::copy_n(w.best + (b - item.first) * kTileKeys, own, scores_of(p, item.head) + j);
      }
    }
  }

  // All pieces of candidate i, or of the next places' where there are fewer.
  void prefetch_candidate(const Places& places, const Places& next, int i) const {
    const std::byte* at = i < kTileKeys ? places.first[i] : next.first[i - kTileKeys];
    if (at != nullptr) prefetch_row(at, static_cast<size_t>(nodes_) * row_bytes_);
  }

  void scan_rows(const Item& item, const Workspace& w) const {
    const Piecewise& p = blocks_[item.first];
    const float* rows = ordered_rows_of(p, item.head);
    const int together = std::max(1, kTogether / nodes_), ahead = std::clamp(kAhead / nodes_, together, kTileKeys - together);
    Places next = locate(p, item.head, item.from, item.to, w.means);
    for (int64_t j = item.from; j < item.to; j += kTileKeys) {
      const Places places = next;
      next = locate(p, item.head, j + kTileKeys, item.to, w.means);
      if (a_.piece > 1) average(p, item.head, j, places.lanes, w.means);
      float* scores = scores_of(p, item.head) + j;
      std::fill_n(scores, places.lanes, -std::numeric_limits<float>::infinity());
      for (int i = 0; i < places.lanes; i += together) {
        for (int k = i + ahead; k < i + ahead + together; ++k) prefetch_candidate(places, next, k);
        row_ops_->best_of_runs(rows, p.rows.count(), d_, places.first + i, std::min(together, places.lanes - i), nodes_, key_type_,
                               scores + i);
      }
    }
  }
  float* scores_of(const Piecewise& p, int head) const { return a_.scores + (p.index * a_.heads.kv_heads + head) * a_.score_capacity; }

  const TileOps& ops_;
  const ScanArgs& a_;
  int d_;
  DType key_type_;    // of pieces
  size_t row_bytes_;  // of one of them
  int nodes_;         // pieces of a candidate
  bool in_a_row_;     // which follow one another
  const RowScoreOps* row_ops_ = row_score_ops();
  std::vector<Piecewise> blocks_;
  int64_t rows_ = 0;       // of one KV head, all blocks that are scored by tiles
  int64_t lone_rows_ = 0;  // and of the others
  int64_t most_rows_ = 1;
  std::byte* packed_ = nullptr;  // [kv heads, rows_, d]
  float* ordered_ = nullptr;     // [kv heads, lone_rows_, d]
};

}  // namespace

void scan_pieces(const TileOps& ops, const ScanArgs& a) { PieceScan(ops, a).run(); }

}  // namespace bough::cpu
