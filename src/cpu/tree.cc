// All lists take their rounds together, so that the work of a round can be cut over lists, KV heads and ranges of halves: one decode
// row has work for several threads, too. Lanes of a tile are single keys; a half has as many as its representative has strided keys.
#include "steps/tree.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/cpu_bodies.h"
#include "cpu/gather.h"
#include "cpu/scratch.h"
#include "cpu/search.h"

namespace bough::cpu {
namespace {

constexpr int64_t kItemLanes = 256;

struct List {
  int64_t block;
  int head;        // list head
  int64_t halves;  // live in this round; 0: finished
};

// Halves [begin, end) of one list against one KV head.
struct Item {
  int64_t list;
  int kv_head;
  int64_t begin;
  int64_t end;
};

// A half and the order in which halves are kept.
struct Scored {
  float score;
  Branch branch;
};
bool better(const Scored& x, const Scored& y) { return x.score > y.score || (x.score == y.score && x.branch.start < y.branch.start); }

struct Workspace {
  float* pooled;       // [rows, d]
  float* angles;       // cos then sin [d/2][32]
  std::byte* tile;     // K tile
  Scored* candidates;  // [2 n]

  static Workspace carve(const TileOps& ops, int64_t rows, int64_t halves, int d, Carver& carver) {
    Workspace w{};
    w.pooled = carver.take<float>(rows * d);
    w.angles = carver.take<float>(int64_t{d} * kTileKeys);
    w.tile = carver.bytes(ops.k_tile_bytes(d));
    w.candidates = carver.take<Scored>(halves);
    return w;
  }
};

class TreeSearch {
 public:
  TreeSearch(const TileOps& ops, const TreeArgs& args)
      : ops_(ops), a_(args), n_(tree_branches(args.tree)), kv_heads_(args.list_heads == 1 ? args.heads.kv_heads : 1) {}

  void run() {
    collect();
    if (lists_.empty()) return;
    Carver sizes(nullptr);
    Workspace::carve(ops_, rows_, 2 * n_, a_.heads.head_dim, sizes);
    const Scratch scratch(sizes.used());
    const auto workspace = [&] {
      Carver carver(scratch.mine());
      return Workspace::carve(ops_, rows_, 2 * n_, a_.heads.head_dim, carver);
    };
    const int64_t groups = static_cast<int64_t>(lists_.size()) * kv_heads_;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < groups; ++i) pack_queries(i, workspace());
    while (split()) {
#pragma omp parallel for schedule(dynamic)
      for (const Item& item : items_) {
        const TileScope scope(ops_);
        score(item, workspace());
      }
#pragma omp parallel for schedule(dynamic)
      for (size_t i = 0; i < lists_.size(); ++i) {
        if (lists_[i].halves > 0) keep(static_cast<int64_t>(i), workspace());
      }
    }
    for (size_t i = 0; i < lists_.size(); ++i) {
      int32_t* out = output(lists_[i]);
      for (int64_t j = 0; j < n_; ++j)
        out[j] = static_cast<int32_t>(a_.sinks + int64_t{branches(static_cast<int64_t>(i))[j].start} * a_.tree.key_block);
    }
  }

 private:
  const QueryBlock& block_of(const List& list) const { return a_.batch->blocks[static_cast<size_t>(list.block)]; }
  SearchRows rows_of(const QueryBlock& block, int kv_head) const {
    return {&block, a_.heads, kv_head, a_.tree.query_stride, Pool::strided, a_.rope, a_.kv.type};
  }
  ScanPositions positions(const QueryBlock& block) const { return {a_.scan, block, 2 * n_, a_.window, a_.trained_context}; }
  Branch* branches(int64_t list) { return &branches_[static_cast<size_t>(list * n_)]; }
  Branch* halves(int64_t list) { return &halves_[static_cast<size_t>(list * 2 * n_)]; }
  float* scores(int64_t list, int index) { return &scores_[static_cast<size_t>((list * kv_heads_ + index) * 2 * n_)]; }
  std::byte* packed(int64_t group) { return &packed_[static_cast<size_t>(group * rows_ * a_.heads.head_dim) * ops_.elem]; }
  int32_t* output(const List& list) const { return a_.start + (list.block * a_.list_heads + list.head) * a_.capacity; }
  int64_t keys_of_half() const { return a_.tree.key_block / a_.tree.key_stride; }

  // Answers the blocks that have nothing to choose and lays out the first branches of the others.
  void collect() {
    for (size_t i = 0; i < a_.batch->blocks.size(); ++i) {
      if (a_.active[i] == 0) continue;
      const auto b = static_cast<int64_t>(i);
      const int64_t blocks = tree_blocks(a_, b);
      a_.keys_read[b] = 0;
      a_.count[b] = static_cast<int32_t>(std::min(n_, blocks));
      for (int head = 0; head < a_.list_heads; ++head) {
        const List list{b, head, 0};
        if (blocks > n_) {
          lists_.push_back(list);
          continue;
        }
        for (int64_t j = 0; j < blocks; ++j) output(list)[j] = static_cast<int32_t>(a_.sinks + j * a_.tree.key_block);
      }
    }
    const size_t lists = lists_.size();
    branches_.resize(lists * static_cast<size_t>(n_));
    halves_.resize(2 * branches_.size());
    scores_.resize(halves_.size() * static_cast<size_t>(kv_heads_));
    for (size_t i = 0; i < lists; ++i) {
      const int64_t blocks = tree_blocks(a_, lists_[i].block);
      Branch* out = branches(static_cast<int64_t>(i));
      for (int64_t j = 0; j < n_; ++j) {
        const int64_t start = first_branch_start(j, n_, blocks);
        out[j] = {static_cast<int32_t>(start), static_cast<int32_t>(first_branch_start(j + 1, n_, blocks) - start)};
      }
      rows_ = std::max<int64_t>(rows_, rows_of(block_of(lists_[i]), 0).count());
    }
    packed_.resize(lists * static_cast<size_t>(kv_heads_ * rows_ * a_.heads.head_dim) * ops_.elem);
  }

  // Group i: one KV head of one list.
  void pack_queries(int64_t i, const Workspace& w) {
    const List& list = lists_[static_cast<size_t>(i / kv_heads_)];
    const QueryBlock& block = block_of(list);
    const SearchRows rows = rows_of(block, list.head + static_cast<int>(i % kv_heads_));
    rows.pool_into(a_.q, w.pooled);
    rows.pack(ops_, w.pooled, positions(block), 0, w.angles, packed(i));
  }

  // The live halves of every list that has a branch to halve, and the round's work. False when all are finished.
  bool split() {
    items_.clear();
    const int64_t range = std::max<int64_t>(1, kItemLanes / keys_of_half());
    for (size_t i = 0; i < lists_.size(); ++i) {
      List& list = lists_[i];
      const auto index = static_cast<int64_t>(i);
      const Branch* parent = branches(index);
      Branch* out = halves(index);
      list.halves = 0;
      if (std::none_of(parent, parent + n_, [](const Branch& b) { return b.size > 1; })) continue;
      for (const Branch* b = parent; b < parent + n_; ++b) {
        const int32_t half = b->size / 2;
        if (half > 0) out[list.halves++] = {b->start, half};
        if (b->size > 0) out[list.halves++] = {b->start + half, b->size - half};
      }
      a_.keys_read[list.block] += list.halves * keys_of_half() * kv_heads_;
      for (int h = 0; h < kv_heads_; ++h) {
        for (int64_t begin = 0; begin < list.halves; begin += range) {
          items_.push_back({index, h, begin, std::min(begin + range, list.halves)});
        }
      }
    }
    return !items_.empty();
  }

  void score(const Item& item, const Workspace& w) {
    const List& list = lists_[static_cast<size_t>(item.list)];
    const QueryBlock& block = block_of(list);
    const int kv_head = list.head + item.kv_head;
    const PageTable& pages = a_.batch->sequences[static_cast<size_t>(block.seq)];
    const size_t plane = a_.kv.k_offset(a_.layer, kv_head);
    const ScanPositions at = positions(block);
    const int rows = rows_of(block, kv_head).count();
    const int64_t per_half = keys_of_half();
    const int64_t lanes = (item.end - item.begin) * per_half;
    float* out = scores(item.list, item.kv_head);
    std::fill(out + item.begin, out + item.end, -std::numeric_limits<float>::infinity());
    const auto token = [&](int64_t lane) {
      const Branch& half = halves(item.list)[item.begin + lane / per_half];
      return a_.sinks + representative_of(half, a_.tree.rep) * a_.tree.key_block + lane % per_half * a_.tree.key_stride;
    };
    const auto prefetch = [&](int64_t from) {
      for (int64_t lane = from; lane < std::min(lanes, from + kTileKeys); ++lane) {
        prefetch_token(pages, a_.kv, plane, token(lane));
      }
    };
    prefetch(0);
    for (int64_t from = 0; from < lanes; from += kTileKeys) {
      prefetch(from + kTileKeys);
      const int count = static_cast<int>(std::min<int64_t>(kTileKeys, lanes - from));
      const std::byte* keys[kTileKeys] = {};
      int64_t position[kTileKeys];
      for (int i = 0; i < count; ++i) {
        const int64_t key = token(from + i);
        keys[i] = pages.row(key, plane, a_.kv.row_bytes());
        position[i] = at.key(key, item.begin + (from + i) / per_half);
      }
      const bool turn = at.turns_keys();
      if (turn) gather_angles(*a_.rope, position, count, w.angles);
      const float* sin = w.angles + static_cast<ptrdiff_t>(a_.rope->pairs()) * kTileKeys;
      ops_.pack_keys(keys, a_.kv.type, a_.heads.head_dim, a_.rope->params(), turn ? w.angles : nullptr, turn ? sin : nullptr, w.tile);
      float best[kTileKeys];
      std::fill_n(best, kTileKeys, -std::numeric_limits<float>::infinity());
      ops_.max_scores(packed(item.list * kv_heads_ + item.kv_head), 1, rows, a_.heads.head_dim, w.tile, best);
      for (int i = 0; i < count; ++i) {
        float& s = out[item.begin + (from + i) / per_half];
        s = std::max(s, best[i]);
      }
    }
  }

  // The n best halves become the branches, ascending. While there are fewer, the rest are empty branches at the end.
  void keep(int64_t list, const Workspace& w) {
    const int64_t count = lists_[static_cast<size_t>(list)].halves;
    for (int64_t i = 0; i < count; ++i) {
      float best = scores(list, 0)[i];
      for (int h = 1; h < kv_heads_; ++h) best = std::max(best, scores(list, h)[i]);
      w.candidates[i] = {best, halves(list)[i]};
    }
    const int64_t kept = std::min(n_, count);
    if (kept < count) std::nth_element(w.candidates, w.candidates + kept, w.candidates + count, better);
    std::sort(w.candidates, w.candidates + kept, [](const Scored& x, const Scored& y) { return x.branch.start < y.branch.start; });
    Branch* out = branches(list);
    for (int64_t i = 0; i < n_; ++i) out[i] = i < kept ? w.candidates[i].branch : Branch{};
  }

  const TileOps& ops_;
  const TreeArgs& a_;
  int64_t n_;
  int kv_heads_;      // of a list
  int64_t rows_ = 1;  // the most of a group
  std::vector<List> lists_;
  std::vector<Item> items_;
  std::vector<Branch> branches_;   // [lists, n]
  std::vector<Branch> halves_;     // [lists, 2 n]
  std::vector<float> scores_;      // [lists, kv heads of a list, 2 n]
  std::vector<std::byte> packed_;  // [lists, kv heads of a list, rows, d] elements
};

}  // namespace

void tree(const TileOps& ops, const TreeArgs& a) { TreeSearch(ops, a).run(); }

}  // namespace bough::cpu
