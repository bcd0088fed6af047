// One sequence of a TinyForward, read and decoded step by step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "support/tiny_engine.h"

namespace bough::test {

// One sequence that reads `length` tokens and then decodes.
class Conversation {
 public:
  Conversation(TinyForward& forward, int64_t length) : forward_(forward), sequence_(forward.sequence()), text_(tiny_text(4000)) {
    const Slice slice{sequence_.get(), next(length)};
    forward_.step({&slice, 1});
  }

  std::vector<float> decode() {
    const Slice slice{sequence_.get(), next(1), true, INT64_MAX, 1};
    return forward_.step({&slice, 1});
  }
  // Reads one token as an append before sampling does.
  std::vector<float> append_one() {
    const Slice slice{sequence_.get(), next(1), false, sequence_->length(), 1};
    return forward_.step({&slice, 1});
  }
  int64_t length() const { return sequence_->length(); }
  const std::vector<TokenId>& tokens() const { return sequence_->tokens; }
  const AttentionState& state() const { return sequence_->attention; }
  const LayerState& layer(int i) const { return sequence_->attention.layers[static_cast<size_t>(i)]; }

 private:
  std::span<const TokenId> next(int64_t count) {
    return std::span<const TokenId>(text_).subspan(static_cast<size_t>(sequence_->length()), static_cast<size_t>(count));
  }

  TinyForward& forward_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<TokenId> text_;
};

}  // namespace bough::test
