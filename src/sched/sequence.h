// Sequence: one conversation's tokens, pages and attention state.
#pragma once

#include <vector>

#include "attention/state.h"
#include "attention/tally.h"
#include "bough/types.h"
#include "kv/page_pool.h"

namespace bough {

// INVARIANT: between engine steps tokens.size() == pages.length().
struct Sequence {
  Sequence(PagePool* pool, int layers) : pages(pool) { attention.layers.resize(static_cast<size_t>(layers)); }

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  // REQUIRES: length <= length().
  void rollback(int64_t to) {
    tokens.resize(static_cast<size_t>(to));
    pages.truncate(to);
    attention.restart(to);
  }

  std::vector<TokenId> tokens;
  PageList pages;
  AttentionState attention;
};

}  // namespace bough
