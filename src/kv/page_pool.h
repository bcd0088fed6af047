// PagePool: memory of the KV cache, in pages of 64 tokens. PageList: the pages of one sequence, some of them shared with others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "bough/status.h"
#include "steps/shape.h"

namespace bough {

// Hands out pages of one size and counts who refers to each. Memory is taken from the system in arenas of about 32 MiB and kept until
// the pool goes; a page that nobody refers to any more is handed out again first. Pages may also lie in views of files, which go with
// the last reference to one of their pages. Not thread-safe.
class PagePool {
 public:
  explicit PagePool(KvShape shape) : shape_(shape) {}
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  const KvShape& shape() const { return shape_; }
  // A page with unspecified contents and one reference. Errors: out_of_memory.
  Result<std::byte*> take();
  // Pages of `view` become the pool's, each with one reference. REQUIRES: ascending, none in two views. Throws std::bad_alloc; nothing
  // has changed then.
  void adopt(std::shared_ptr<std::byte> view, std::vector<std::byte*> pages);
  // One reference more, one less. REQUIRES: references(page) > 0.
  void share(std::byte* page);
  void give_back(std::byte* page);
  int64_t references(const std::byte* page) const { return (count(page) >> 1) + (count(page) & kKept); }

  // One reference that is told from the others, at most one a page: pages that nothing else refers to are counted while they change.
  // REQUIRES: references(page) > 0 and not kept; kept.
  void keep(std::byte* page) { count_of(page) |= kKept; }
  void drop(std::byte* page);
  int64_t pages_only_kept() const { return only_kept_; }

  // Pages that anybody refers to, each counted once.
  int64_t pages_in_use() const { return in_use_; }
  // Of these, the ones that do not lie in views.
  int64_t pages_in_memory() const { return in_use_ - in_views_; }
  bool in_memory(std::byte* page) { return view_of(page) == views_.end(); }
  int64_t bytes_in_use() const { return in_use_ * static_cast<int64_t>(shape_.page_bytes()); }

 private:
  // An arena: the counts of its pages, then the pages. It begins at a multiple of kArenaBytes and its pages within that distance, so
  // that a page's address tells where its count is: counting touches no page.
  static constexpr size_t kArenaBytes = size_t{32} << 20;
  static constexpr int64_t kKept = 1;
  struct Unmap {
    size_t bytes = 0;
    void operator()(std::byte* p) const;
  };
  struct View {
    std::shared_ptr<std::byte> memory;
    std::vector<std::byte*> pages;  // ascending
    std::vector<int64_t> counts;    // as count_of
    size_t used = 0;                // pages that anybody refers to
  };
  Status grow();
  // The view that `page` lies in; end() when it lies in an arena.
  std::map<std::byte*, View>::iterator view_of(std::byte* page);
  size_t pages_of_arena() const;
  size_t header_bytes() const { return (pages_of_arena() * sizeof(int64_t) + 63) / 64 * 64; }
  // One cache line more than a page has: the same row of neighbouring pages lies in different sets of a cache. The pages of an arena
  // begin where those of the arena before it would go on.
  size_t stride() const { return (shape_.page_bytes() + 63) / 64 * 64 + 64; }
  // Twice the number of references but the kept one, and kKept with it.
  int64_t& count_of(std::byte* page);
  int64_t count(const std::byte* page) const { return const_cast<PagePool*>(this)->count_of(const_cast<std::byte*>(page)); }
  void free(std::byte* page);

  KvShape shape_;
  std::vector<std::unique_ptr<std::byte, Unmap>> arenas_;
  std::map<std::byte*, View> views_;  // by their first page
  std::vector<std::byte*> free_;
  int64_t in_use_ = 0;
  int64_t in_views_ = 0;
  int64_t only_kept_ = 0;
};

// INVARIANT: pages().size() == ceil(length / 64). Gives its pages back when it goes. Rows from length() on are written only after
// extend(), which makes the page that they begin in the list's own: what is shared is never written to.
class PageList {
 public:
  explicit PageList(PagePool* pool) : pool_(pool) {}
  ~PageList() { truncate(0); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  int64_t length() const { return length_; }
  // Makes room for tokens up to `length`; a shared last page that has room is replaced by a copy. On error the list is unchanged.
  // Errors: out_of_memory.
  Status extend(int64_t length);
  // Forgets tokens from `length` on. REQUIRES: length <= length().
  void truncate(int64_t length);
  // Adds whole pages that others hold. REQUIRES: length() is a multiple of 64. Throws std::bad_alloc; the list is unchanged then.
  void append_shared(std::span<std::byte* const> pages);
  // Adds whole pages in a view of a file. REQUIRES: as append_shared, PagePool::adopt. Throws std::bad_alloc; the list is unchanged then.
  void append_view(std::shared_ptr<std::byte> view, std::vector<std::byte*> pages);
  // Becomes the first `length` tokens of another list of the same pool. REQUIRES: this one is empty; length <= other.length(). Throws
  // std::bad_alloc; the list is unchanged then.
  void share_prefix(const PageList& other, int64_t length);
  // Holds `page`, which others hold, instead of page i. REQUIRES: both have the same contents.
  void replace(size_t i, std::byte* page);
  PageTable table() const { return {pages_.data(), length_}; }
  const std::vector<std::byte*>& pages() const { return pages_; }

 private:
  PagePool* pool_;
  std::vector<std::byte*> pages_;
  int64_t length_ = 0;
};

}  // namespace bough
