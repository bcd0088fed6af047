// Pages that sessions share: forks, and beginnings of texts that another session has read.
#include <algorithm>
#include <new>

#include "engine/impl.h"

namespace bough {

Result<std::unique_ptr<Session>> Session::fork() const try {
  auto impl = std::make_unique<Impl>(impl_->engine);
  impl->sequence.tokens = impl_->sequence.tokens;
  impl->sequence.pages.share_prefix(impl_->sequence.pages, length());
  impl->logits = impl_->logits;
  impl->savable = impl_->savable;
  return std::unique_ptr<Session>(new Session(std::move(impl)));
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to fork a session of " + std::to_string(length()) + " tokens");
}

int64_t Session::Impl::take_known(std::span<const TokenId> tokens) {
  const int64_t begin = sequence.length();
  if (savable != begin || engine->prefixes->pages() == 0) return 0;
  std::vector<TokenId> text = sequence.tokens;
  text.insert(text.end(), tokens.begin(), tokens.end());
  const std::vector<std::byte*> pages = engine->prefixes->find(text, static_cast<size_t>(begin / kPageTokens));
  const int64_t taken = static_cast<int64_t>(pages.size()) * kPageTokens;
  if (taken == 0) return 0;
  text.resize(static_cast<size_t>(begin + taken));
  sequence.pages.append_shared(pages);
  sequence.tokens = std::move(text);
  sequence.attention.restart(begin);
  savable = begin + taken;
  return taken;
}

void Session::Impl::make_known() {
  try {
    engine->prefixes->insert(std::span(sequence.tokens).first(static_cast<size_t>(savable)), sequence.pages);
    engine->prefixes->trim();
  } catch (const std::bad_alloc&) {
    // Sharing less is the only consequence.
  }
}

void Engine::Impl::trim_prefixes() {
  try {
    prefixes->trim();
  } catch (const std::bad_alloc&) {
    // The next call trims.
  }
}

}  // namespace bough
