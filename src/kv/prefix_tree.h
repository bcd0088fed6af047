// PrefixTree: pages that are known by the text they hold, so that a sequence that begins with the same text shares them.
//
// A node is one page of 64 tokens after all the pages on its way from the root: keys and values of a token depend on every token before
// it. Only whole pages go in whose bits depend on the text alone, whatever sequence computed them (Sequence::settled).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kv/page_pool.h"

namespace bough {

// Holds one reference to each of its pages. Those that no sequence holds besides are kept up to a budget of bytes and the least
// recently used are given back first, the ends of texts before their beginnings. Not thread-safe.
class PrefixTree {
 public:
  // The pool must outlive the tree and have no other. A budget of 0 bytes keeps nothing and finds nothing.
  PrefixTree(PagePool* pool, int64_t budget) : pool_(pool), budget_(budget) {}
  ~PrefixTree() { clear(); }
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // Pages of the longest known beginning of `text`, after the first `skip` pages of it, which must be known too. They stay valid until
  // the next call that is not const. Marks them as used.
  std::vector<std::byte*> find(std::span<const TokenId> text, size_t skip);

  // Makes the first whole pages of a sequence known: pages[i] holds tokens [64 i, 64 (i + 1)) of `text`. Where the tree already has a
  // page for the same text, that one replaces the caller's in `pages`, so that one copy stays. Throws std::bad_alloc; what was inserted
  // until then stays.
  void insert(std::span<const TokenId> text, PageList& pages);

  // From page `first` of `text` on, as far as its pages are known, knows it by `pages`. REQUIRES: they hold what the known ones hold.
  void replace(std::span<const TokenId> text, size_t first, std::span<std::byte* const> pages);

  // Gives back pages that no sequence holds, beyond the budget or all of them.
  void trim() { trim_to(budget_); }
  void drop_unused() { trim_to(0); }

  int64_t pages() const { return static_cast<int64_t>(nodes_.size()); }
  // Bytes of the pages that no sequence holds.
  int64_t unused_bytes() const { return pool_->pages_only_kept() * static_cast<int64_t>(pool_->shape().page_bytes()); }

  // Whether the tree hangs together. Errors: internal, with what is wrong.
  Status check_integrity() const;

 private:
  using PageTokens = std::array<TokenId, kPageTokens>;
  using Key = std::pair<uint64_t, PageTokens>;  // the parent's id, the page's tokens
  struct Node;
  using Nodes = std::map<Key, Node>;
  struct Node {
    uint64_t id = 0;  // from 1; 0 is the root
    std::byte* page = nullptr;
    Nodes::iterator parent;  // nodes_.end(): the root
    int64_t children = 0;
    uint64_t used = 0;  // when last found or inserted
  };

  static Key key_of(uint64_t parent, std::span<const TokenId> text, size_t page);
  bool unused_leaf(const Node& node) const { return node.children == 0 && pool_->references(node.page) == 1; }
  void erase(Nodes::iterator node);
  void trim_to(int64_t bytes);
  void clear();

  PagePool* pool_;
  int64_t budget_;
  Nodes nodes_;  // flat: a text of millions of tokens is a chain too deep for nested nodes
  uint64_t next_id_ = 1;
  uint64_t clock_ = 0;
};

}  // namespace bough
