// The file tier: beyond the memory that pages may take, those that a session file holds are used where they lie in it.
#include <algorithm>
#include <new>

#include "base/check.h"
#include "engine/impl.h"

namespace bough {
namespace {

constexpr int64_t kStepPages = kSliceTokens / kPageTokens;

}  // namespace

void Engine::Impl::fit_pages() try {
  const int64_t most = std::max<int64_t>(0, kv_memory / static_cast<int64_t>(pool->shape().page_bytes()) - kStepPages);
  for (Session::Impl* session : sessions) {
    // A step's pages at least: every view of a file costs the system something.
    while (pool->pages_in_memory() > most && session->move_to_file(std::max(pool->pages_in_memory() - most, kStepPages))) {
    }
  }
  if (pool->pages_in_memory() > most) prefixes->drop_unused();
} catch (const std::bad_alloc&) {
  // They stay where they are, and the next step tries again.
}

bool Session::Impl::move_to_file(int64_t most) {
  if (!writer) return false;
  const std::vector<std::byte*>& pages = sequence.pages.pages();
  const auto in_memory = [&](std::byte* page) { return engine->pool->in_memory(page); };
  const auto written = pages.begin() + static_cast<std::ptrdiff_t>(writer->pages());
  const auto begin = std::find_if(pages.begin(), written, in_memory);
  const auto end = std::find_if_not(begin, begin + std::min<std::ptrdiff_t>(most, written - begin), in_memory);
  if (begin == end) return false;
  const auto first = static_cast<size_t>(begin - pages.begin());
  Result<MappedPages> mapped = writer->map_pages(first, static_cast<size_t>(end - begin));
  if (!mapped.ok() && mapped.status().code() == Code::out_of_memory) return false;  // passing: the file is as it was
  if (!mapped.ok()) {
    keeping = mapped.status();
    writer.reset();
    return false;
  }
  engine->replace_pages(sequence, first, std::move(*mapped));
  return true;
}

void Engine::Impl::replace_pages(const Sequence& holder, size_t first, MappedPages mapped) {
  const auto in_text = std::span(holder.pages.pages()).subspan(first, mapped.pages.size());
  const std::vector<std::byte*> old(in_text.begin(), in_text.end()), fresh = mapped.pages;
  pool->adopt(std::move(mapped.view), std::move(mapped.pages));
  for (Session::Impl* session : sessions) {
    PageList& list = session->sequence.pages;  // whoever shares a page has it in the same place
    for (size_t i = 0; i < old.size() && first + i < list.pages().size(); ++i) {
      if (list.pages()[first + i] == old[i]) list.replace(first + i, fresh[i]);
    }
  }
  prefixes->replace(holder.tokens, first, fresh);
  for (std::byte* page : fresh) pool->give_back(page);
}

}  // namespace bough
