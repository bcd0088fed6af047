#include "kv/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"

namespace bough {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLine = 64;
constexpr size_t kColours = 64;  // cache lines after which the sets of a first-level cache repeat

}  // namespace

void PagePool::Unmap::operator()(std::byte* p) const { munmap(p, bytes); }

// As many as fit, at least one: a page may be larger than an arena, but begins within its first kArenaBytes.
size_t PagePool::pages_of_arena() const {
  return std::max<size_t>(1, (kArenaBytes - kColours * kLine - 64) / (stride() + sizeof(int64_t)));
}

std::map<std::byte*, PagePool::View>::iterator PagePool::view_of(std::byte* page) {
  auto view = views_.upper_bound(page);
  if (view == views_.begin() || page > (--view)->second.pages.back()) return views_.end();
  return view;
}

int64_t& PagePool::count_of(std::byte* page) {
  if (!views_.empty()) {
    if (const auto view = view_of(page); view != views_.end()) {
      View& v = view->second;
      return v.counts[static_cast<size_t>(std::lower_bound(v.pages.begin(), v.pages.end(), page) - v.pages.begin())];
    }
  }
  const size_t from_base = reinterpret_cast<uintptr_t>(page) % kArenaBytes;
  return reinterpret_cast<int64_t*>(page - from_base)[(from_base - header_bytes()) / stride()];
}

Status PagePool::grow() {
  const size_t pages = pages_of_arena();
  const size_t colour = arenas_.size() * pages % std::min(kColours, stride() / kLine) * kLine;
  const size_t bytes = (header_bytes() + colour + pages * stride() + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = mmap(nullptr, bytes + kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Status(Code::out_of_memory, "no memory for " + std::to_string(bytes) + " more bytes of KV cache beyond the " +
                                           std::to_string(bytes_in_use()) + " in use");
  }
  auto* taken = static_cast<std::byte*>(memory);
  const size_t before = (kArenaBytes - reinterpret_cast<uintptr_t>(taken) % kArenaBytes) % kArenaBytes;
  if (before > 0) munmap(taken, before);
  std::byte* base = taken + before;
  if (before < kArenaBytes) munmap(base + bytes, kArenaBytes - before);
  madvise(base, bytes, MADV_HUGEPAGE);  // scans read keys far apart; a refusal costs speed only
  std::unique_ptr<std::byte, Unmap> arena(base, Unmap{bytes});
  free_.reserve((arenas_.size() + 1) * pages);  // giving back takes no memory
  arenas_.push_back(std::move(arena));
  for (size_t i = pages; i-- > 0;) free_.push_back(base + header_bytes() + colour + i * stride());
  return {};
}

Result<std::byte*> PagePool::take() {
  if (free_.empty()) BOUGH_RETURN_IF_ERROR(grow());
  std::byte* page = free_.back();
  free_.pop_back();
  ::new (&count_of(page)) int64_t{2};
  ++in_use_;
  return page;
}

void PagePool::adopt(std::shared_ptr<std::byte> view, std::vector<std::byte*> pages) {
  if (pages.empty()) return;
  const size_t size = pages.size();
  std::vector<int64_t> counts(size, 2);
  std::byte* first = pages.front();
  views_.emplace(first, View{std::move(view), std::move(pages), std::move(counts), size});
  in_use_ += static_cast<int64_t>(size);
  in_views_ += static_cast<int64_t>(size);
}

void PagePool::share(std::byte* page) {
  int64_t& count = count_of(page);
  if (count == kKept) --only_kept_;
  count += 2;
}

void PagePool::give_back(std::byte* page) {
  int64_t& count = count_of(page);
  count -= 2;
  if (count == kKept) ++only_kept_;
  if (count == 0) free(page);
}

void PagePool::drop(std::byte* page) {
  int64_t& count = count_of(page);
  count -= kKept;
  if (count != 0) return;
  --only_kept_;
  free(page);
}

void PagePool::free(std::byte* page) {
  --in_use_;
  const auto view = view_of(page);
  if (view == views_.end()) {
    free_.push_back(page);
    return;
  }
  --in_views_;
  if (--view->second.used == 0) views_.erase(view);
}

Status PageList::extend(int64_t length) {
  if (length <= length_) return {};
  const auto wanted = static_cast<size_t>((length + kPageTokens - 1) / kPageTokens);
  const size_t held = pages_.size();
  const bool copies = length_ % kPageTokens != 0 && pool_->references(pages_.back()) > 1;
  const size_t from = copies ? held - 1 : held;
  std::vector<std::byte*> fresh;
  fresh.reserve(wanted - from);
  pages_.reserve(wanted);
  while (fresh.size() < wanted - from) {
    Result<std::byte*> page = pool_->take();
    if (!page.ok()) {
      for (std::byte* taken : fresh) pool_->give_back(taken);
      return page.status();
    }
    fresh.push_back(*page);
  }
  if (copies) {
    std::memcpy(fresh.front(), pages_.back(), pool_->shape().page_bytes());
    pool_->give_back(pages_.back());
  }
  pages_.resize(from);
  pages_.insert(pages_.end(), fresh.begin(), fresh.end());
  length_ = length;
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

void PageList::append_shared(std::span<std::byte* const> pages) {
  pages_.insert(pages_.end(), pages.begin(), pages.end());
  for (std::byte* page : pages) pool_->share(page);
  length_ += static_cast<int64_t>(pages.size()) * kPageTokens;
}

void PageList::append_view(std::shared_ptr<std::byte> view, std::vector<std::byte*> pages) {
  pages_.insert(pages_.end(), pages.begin(), pages.end());
  const size_t added = pages.size();
  try {
    pool_->adopt(std::move(view), std::move(pages));
  } catch (const std::bad_alloc&) {
    pages_.resize(pages_.size() - added);
    throw;
  }
  length_ += static_cast<int64_t>(added) * kPageTokens;
}

void PageList::share_prefix(const PageList& other, int64_t length) {
  append_shared(std::span(other.pages_).first(static_cast<size_t>((length + kPageTokens - 1) / kPageTokens)));
  length_ = length;
}

void PageList::replace(size_t i, std::byte* page) {
  pool_->share(page);
  pool_->give_back(pages_[i]);
  pages_[i] = page;
}

}  // namespace bough
