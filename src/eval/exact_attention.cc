#include "eval/exact_attention.h"

#include <algorithm>
#include <cmath>

#include "steps/kv_row.h"

namespace bough::eval {

void ExactAttention::turn(const RopeTable& rope, int64_t position, float* row, int dim) {
  RopeTable& table = tables_.try_emplace(&rope, rope.params()).first->second;
  table.reserve(position + 1);
  rope_row(row, table.cos_row(position), table.sin_row(position), table.params(), dim, row);
}

void ExactAttention::load_keys(const LayerView& v, int sequence, int kv_head, int64_t end) {
  const KvShape& kv = v.setup.kv;
  const PageTable& pages = v.batch.sequences[static_cast<size_t>(sequence)];
  std::vector<float> row(static_cast<size_t>(kv.head_dim));
  end_ = end;
  keys_.resize(row.size() * static_cast<size_t>(end));
  for (int64_t t = 0; t < end; ++t) {
    load_row(pages.row(t, kv.k_offset(v.layer, kv_head), kv.row_bytes()), kv.type, kv.head_dim, row.data());
    if (true_positions_) turn(v.rope, t, row.data(), kv.head_dim);
    for (size_t i = 0; i < row.size(); ++i) keys_[i * static_cast<size_t>(end) + static_cast<size_t>(t)] = row[i];
  }
}

std::span<const float> ExactAttention::attend(const LayerView& v, int64_t row, int head) {
  const auto d = static_cast<size_t>(v.setup.heads.head_dim);
  const int64_t own = v.batch.positions[static_cast<size_t>(row)];
  const int64_t window = v.setup.attention_of(v.layer).sliding_window;
  const auto first = static_cast<size_t>(window > 0 ? std::max<int64_t>(0, own + 1 - window) : 0);
  const float* q = v.q + (row * v.setup.heads.heads + head) * v.setup.heads.head_dim;
  std::vector<float> query(q, q + d);
  turn(v.rope, true_positions_ ? own : v.setup.layer(v.layer).window, query.data(), v.setup.heads.head_dim);
  if (!true_positions_) magnify_row(v.rope.params(), query.data());
  const auto visible = static_cast<size_t>(own + 1);
  scores_.assign(visible, 0.0F);
  for (size_t i = 0; i < d; ++i) {
    const float x = query[i] * v.setup.heads.scale;
    const float* key = &keys_[i * static_cast<size_t>(end_)];
    for (size_t t = first; t < visible; ++t) scores_[t] += x * key[t];
  }
  const std::span<float> seen = std::span(scores_).subspan(first);
  const float cap = v.setup.heads.softcap;
  if (cap > 0) {
    for (float& s : seen) s = cap * std::tanh(s / cap);
  }
  const float top = *std::max_element(seen.begin(), seen.end());
  double sum = 0;
  for (float& s : seen) sum += static_cast<double>(s = std::exp(s - top));
  for (float& s : seen) s = static_cast<float>(static_cast<double>(s) / sum);
  return scores_;
}

}  // namespace bough::eval
