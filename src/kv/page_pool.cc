#include "kv/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/check.h"

namespace bough {
namespace {

constexpr size_t kArenaBytes = size_t{32} << 20;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void PagePool::Unmap::operator()(std::byte* p) const { munmap(p, bytes); }

Status PagePool::grow() {
  const size_t pages = std::max<size_t>(1, kArenaBytes / shape_.page_bytes());
  const size_t bytes = (pages * shape_.page_bytes() + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Status(Code::out_of_memory, "no memory for " + std::to_string(bytes) + " more bytes of KV cache beyond the " +
                                           std::to_string(bytes_in_use()) + " in use");
  }
  madvise(memory, bytes, MADV_HUGEPAGE);  // scans read keys far apart; a refusal costs speed only
  arenas_.emplace_back(static_cast<std::byte*>(memory), Unmap{bytes});
  free_.reserve(free_.size() + pages);
  for (size_t i = pages; i-- > 0;) free_.push_back(static_cast<std::byte*>(memory) + i * shape_.page_bytes());
  return {};
}

Result<std::byte*> PagePool::take() {
  if (free_.empty()) BOUGH_RETURN_IF_ERROR(grow());
  std::byte* page = free_.back();
  free_.pop_back();
  ++in_use_;
  return page;
}

void PagePool::give_back(std::byte* page) {
  free_.push_back(page);
  --in_use_;
}

Status PageList::extend(int64_t length) {
  const auto wanted = static_cast<size_t>((length + kPageTokens - 1) / kPageTokens);
  const size_t held = pages_.size();
  pages_.reserve(wanted);
  while (pages_.size() < wanted) {
    Result<std::byte*> page = pool_->take();
    if (!page.ok()) {
      for (size_t i = held; i < pages_.size(); ++i) pool_->give_back(pages_[i]);
      pages_.resize(held);
      return page.status();
    }
    pages_.push_back(*page);
  }
  length_ = std::max(length_, length);
  return {};
}

void PageList::truncate(int64_t length) {
  const auto wanted = static_cast<size_t>((length + kPageTokens - 1) / kPageTokens);
  while (pages_.size() > wanted) {
    pool_->give_back(pages_.back());
    pages_.pop_back();
  }
  length_ = length;
}

}  // namespace bough
