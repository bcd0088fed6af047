#include "attention/watch.h"

#include <algorithm>

#include "attention/decode.h"

namespace bough {
namespace {

constexpr int64_t kLongContext = 65'536;  // keys; beyond it groups are coarser, which bounds the room that they take

}  // namespace

MassWatch::MassWatch(const AttentionSetup* setup, const Batch* batch, std::span<SourceTally* const> tallies)
    : setup_(setup), batch_(batch) {
  if (tallies.empty()) return;
  for (size_t b = 0; b < batch->blocks.size(); ++b) {
    const QueryBlock& block = batch->blocks[b];
    SourceTally* tally = tallies[static_cast<size_t>(block.seq)];
    if (tally == nullptr) continue;
    for (int i = 0; i < block.rows; ++i) {
      if (block.r0 + i < tally->watched_from()) continue;
      watched_.push_back({block.row + i, static_cast<int64_t>(b), tally, {}, 0});
    }
  }
  if (!watched_.empty()) rows_.assign(static_cast<size_t>(batch->rows()), nullptr);
}

const Mass* MassWatch::prepare(int layer, const BlockList& lists, std::span<AttentionState* const> states) {
  if (watched_.empty()) return nullptr;
  int64_t longest = 0;
  for (Row& row : watched_) {
    const QueryBlock& block = batch_->blocks[static_cast<size_t>(row.block)];
    if (row.block < batch_->decode_rows) {
      const LayerState& state = states[static_cast<size_t>(row.block)]->layers[static_cast<size_t>(layer)];
      frozen_contexts(setup_->layer(layer), lists.list_heads, state, block.r1(), row.contexts);
    } else {
      row.contexts.resize(static_cast<size_t>(lists.list_heads));
      for (size_t h = 0; h < row.contexts.size(); ++h) row.contexts[h] = context_of(lists, block, row.block, static_cast<int>(h));
    }
    longest = std::max(longest, row.contexts[0].size());
  }
  out_.keys = longest > kLongContext ? 32 : std::min(SourceTally::kUnit, setup_->layer(layer).last_chunk());
  int64_t total = 0;
  for (Row& row : watched_) {
    row.offset = total;
    total += setup_->heads.heads * out_.groups(row.contexts[0].size());
  }
  mass_.resize(static_cast<size_t>(total));
  for (const Row& row : watched_) rows_[static_cast<size_t>(row.row)] = mass_.data() + row.offset;
  out_.rows = rows_.data();
  return &out_;
}

void MassWatch::deliver() {
  for (const Row& row : watched_) {
    row.tally->add(batch_->positions[static_cast<size_t>(row.row)], setup_->heads, row.contexts, out_.keys, mass_.data() + row.offset);
  }
}

}  // namespace bough
