#include "sched/scheduler.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace bough {
namespace {

// Appends the slice's rows and query blocks to the batch.
void lay_out(const Slice& slice, int query_block, Batch& batch) {
  const auto seq = static_cast<int32_t>(batch.sequences.size());
  const int64_t end = slice.sequence->length();
  const int64_t begin = end - static_cast<int64_t>(slice.tokens.size());
  const auto base = static_cast<int32_t>(batch.rows());
  batch.sequences.push_back(slice.sequence->pages.table());
  for (int64_t p = begin; p < end; ++p) {
    batch.ids.push_back(slice.tokens[static_cast<size_t>(p - begin)]);
    batch.positions.push_back(p);
    batch.row_seq.push_back(seq);
  }
  for (int64_t p = begin; p < end;) {
    const int64_t grid = (p / query_block + 1) * query_block;
    const int64_t next = p >= slice.tail_from ? p + 1 : std::min({end, grid, slice.tail_from});
    batch.blocks.push_back({seq, base + static_cast<int32_t>(p - begin), static_cast<int32_t>(next - p), p});
    p = next;
  }
  for (int64_t i = std::max<int64_t>(0, end - begin - slice.logits); i < end - begin; ++i) {
    batch.logit_rows.push_back(base + static_cast<int32_t>(i));
  }
}

void take_back(const Slice& slice) { slice.sequence->rollback(slice.sequence->length() - static_cast<int64_t>(slice.tokens.size())); }

}  // namespace

int64_t slice_end(int64_t from, int64_t end, int64_t most) {
  if (end - from <= most) return end;
  return std::max(from + 1, (from + most) / kPageTokens * kPageTokens);
}

Result<Batch> make_batch(std::span<const Slice> slices, int query_block) {
  for (const Slice& slice : slices) {
    if (slice.decode && slice.tokens.size() != 1) {
      return Status(Code::invalid_argument, "a decode row takes 1 token, not " + std::to_string(slice.tokens.size()));
    }
  }
  for (size_t i = 0; i < slices.size(); ++i) {
    const Slice& slice = slices[i];
    Status status = slice.sequence->pages.extend(slice.sequence->length() + static_cast<int64_t>(slice.tokens.size()));
    if (!status.ok()) {
      for (size_t j = 0; j < i; ++j) take_back(slices[j]);
      return status;
    }
    slice.sequence->tokens.insert(slice.sequence->tokens.end(), slice.tokens.begin(), slice.tokens.end());
  }
  Batch batch;
  for (const Slice& slice : slices) {
    if (slice.decode) lay_out(slice, query_block, batch);
  }
  batch.decode_rows = static_cast<int32_t>(batch.rows());
  for (const Slice& slice : slices) {
    if (!slice.decode) lay_out(slice, query_block, batch);
  }
  return batch;
}

}  // namespace bough
