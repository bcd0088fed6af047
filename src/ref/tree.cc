#include "steps/tree.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "ref/ref_bodies.h"
#include "ref/search.h"

namespace bough::ref {
namespace {

struct Half {
  Branch branch;
  float score = -std::numeric_limits<float>::infinity();
};

// One list of one block.
class TreeSearch {
 public:
  TreeSearch(const TreeArgs& args, int64_t block, int list_head)
      : a_(args),
        block_(args.batch->blocks[static_cast<size_t>(block)]),
        positions_(args.scan, block_, 2 * tree_branches(args.tree), args.window, args.trained_context) {
    for (int h = 0; h < a_.heads.kv_heads; ++h) {
      if (a_.list_heads > 1 && h != list_head) continue;
      heads_.push_back({&block_, a_.kv, a_.heads, a_.layer, h, a_.batch->sequences[static_cast<size_t>(block_.seq)], a_.rope});
      rows_.push_back(query_rows(heads_.back(), a_.q, a_.tree.query_stride, Pool::strided, positions_, 0));
    }
  }

  // Starts of the selected key blocks, ascending, counted from the sinks.
  std::vector<int32_t> run(int64_t blocks) {
    const int64_t n = tree_branches(a_.tree);
    std::vector<Branch> branches;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t start = first_branch_start(j, n, blocks);
      branches.push_back({static_cast<int32_t>(start), static_cast<int32_t>(first_branch_start(j + 1, n, blocks) - start)});
    }
    while (std::any_of(branches.begin(), branches.end(), [](const Branch& b) { return b.size > 1; })) branches = round(branches);
    std::vector<int32_t> starts;
    starts.reserve(branches.size());
    for (const Branch& branch : branches) starts.push_back(branch.start);
    return starts;
  }

  int64_t keys_read() const { return keys_read_; }

 private:
  std::vector<Branch> round(const std::vector<Branch>& branches) {
    std::vector<Half> halves;
    for (const Branch& b : branches) {
      const int32_t half = b.size / 2;
      if (half > 0) halves.push_back({{b.start, half}});
      if (b.size > 0) halves.push_back({{b.start + half, b.size - half}});
    }
    for (size_t i = 0; i < halves.size(); ++i) halves[i].score = score(halves[i].branch, static_cast<int64_t>(i));
    std::stable_sort(halves.begin(), halves.end(), [](const Half& x, const Half& y) { return x.score > y.score; });
    halves.resize(std::min(halves.size(), static_cast<size_t>(tree_branches(a_.tree))));
    std::vector<Branch> kept;
    kept.reserve(halves.size());
    for (const Half& half : halves) kept.push_back(half.branch);
    std::sort(kept.begin(), kept.end(), [](const Branch& x, const Branch& y) { return x.start < y.start; });
    return kept;
  }

  float score(const Branch& branch, int64_t index) {
    const int64_t first = a_.sinks + representative_of(branch, a_.tree.rep) * a_.tree.key_block;
    float best = -std::numeric_limits<float>::infinity();
    for (size_t h = 0; h < heads_.size(); ++h) {
      for (int64_t token = first; token < first + a_.tree.key_block; token += a_.tree.key_stride) {
        const int64_t position = positions_.turns_keys() ? positions_.key(token, index) : -1;
        best = std::max(best, best_score(heads_[h], token, position, rows_[h]));
        ++keys_read_;
      }
    }
    return best;
  }

  const TreeArgs& a_;
  const QueryBlock& block_;
  ScanPositions positions_;
  std::vector<Search> heads_;
  std::vector<Rows> rows_;
  int64_t keys_read_ = 0;
};

}  // namespace

void tree(const TreeArgs& a) {
  for (size_t block = 0; block < a.batch->blocks.size(); ++block) {
    if (a.active[block] == 0) continue;
    const auto b = static_cast<int64_t>(block);
    const int64_t blocks = tree_blocks(a, b);
    const int64_t n = tree_branches(a.tree);
    a.keys_read[b] = 0;
    a.count[b] = static_cast<int32_t>(std::min(n, blocks));
    for (int head = 0; head < a.list_heads; ++head) {
      std::vector<int32_t> starts;
      if (blocks <= n) {
        for (int32_t j = 0; j < blocks; ++j) starts.push_back(j);
      } else {
        TreeSearch search(a, b, head);
        starts = search.run(blocks);
        a.keys_read[b] += search.keys_read();
      }
      int32_t* out = a.start + (b * a.list_heads + head) * a.capacity;
      for (const int32_t start : starts) *out++ = static_cast<int32_t>(a.sinks + int64_t{start} * a.tree.key_block);
    }
  }
}

}  // namespace bough::ref
