// PagePool: memory of the KV cache, in pages of 64 tokens. PageList: the pages of one sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bough/status.h"
#include "steps/shape.h"

namespace bough {

// Hands out pages of one size. Memory is taken from the system in arenas of about 32 MiB and kept until the pool goes; a page that is
// given back is handed out again first. Not thread-safe.
class PagePool {
 public:
  explicit PagePool(KvShape shape) : shape_(shape) {}
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  const KvShape& shape() const { return shape_; }
  // A page with unspecified contents. Errors: out_of_memory.
  Result<std::byte*> take();
  // REQUIRES: page came from take() and was not given back since.
  void give_back(std::byte* page);

  int64_t pages_in_use() const { return in_use_; }
  int64_t bytes_in_use() const { return in_use_ * static_cast<int64_t>(shape_.page_bytes()); }

 private:
  struct Unmap {
    size_t bytes = 0;
    void operator()(std::byte* p) const;
  };
  Status grow();

  KvShape shape_;
  std::vector<std::unique_ptr<std::byte, Unmap>> arenas_;
  std::vector<std::byte*> free_;
  int64_t in_use_ = 0;
};

// INVARIANT: pages().size() == ceil(length / 64). Gives its pages back when it goes.
class PageList {
 public:
  explicit PageList(PagePool* pool) : pool_(pool) {}
  ~PageList() { truncate(0); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  int64_t length() const { return length_; }
  // Makes room for tokens up to `length`; on error the list is unchanged. Errors: out_of_memory.
  Status extend(int64_t length);
  // Forgets tokens from `length` on. REQUIRES: length <= length().
  void truncate(int64_t length);
  PageTable table() const { return {pages_.data(), length_}; }
  const std::vector<std::byte*>& pages() const { return pages_; }

 private:
  PagePool* pool_;
  std::vector<std::byte*> pages_;
  int64_t length_ = 0;
};

}  // namespace bough
