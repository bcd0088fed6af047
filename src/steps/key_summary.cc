#include "steps/key_summary.h"

#include <algorithm>
#include <cstring>

#include "steps/kv_row.h"

namespace bough {
namespace {

constexpr int kMaxDim = 256;

void copy_key(const KvShape& kv, const std::byte* from, DType type, std::byte* to) {
  if (kv.type == type) {
    std::memcpy(to, from, kv.row_bytes());
    return;
  }
  float x[kMaxDim];
  load_row(from, kv.type, kv.head_dim, x);
  for (int i = 0; i < kv.head_dim; ++i) store_element(to, static_cast<size_t>(i), type, x[i]);
}

// The keys that the descent's rounds score.
void copy_chunk(const KvShape& kv, const PageTable& pages, size_t plane, int head, int64_t index, const KeySummary& summary) {
  for (int round = 0; round < summary.rounds; ++round) {
    for (int place = 0; place < 2 << round; ++place) {
      const int64_t token = summary.sinks + index * summary.chunk + summary_offset(summary.chunk, round, place / 2, place % 2);
      copy_key(kv, pages.row(token, plane, kv.row_bytes()), summary.type,
               summary.key(head, index, summary_node(round, place / 2, place % 2)));
    }
  }
}

void average_chunk(const KvShape& kv, const PageTable& pages, size_t plane, int head, int64_t index, const KeySummary& summary) {
  for (int node = 0; node < summary.nodes(); ++node) {
    const int64_t token = summary.sinks + index * summary.chunk + int64_t{node} * summary.piece;
    store_mean(kv, pages, plane, token, summary.piece, summary.key(head, index, node));
  }
}

}  // namespace

void KeySummary::truncate(int64_t length) {
  if (chunks == 0) return;
  chunks = std::min(chunks, std::max<int64_t>(0, length - sinks) / chunk);
  tiles.resize(static_cast<size_t>((chunks + kTile - 1) / kTile));
}

void mean_key(const KvShape& kv, const PageTable& pages, size_t plane, int64_t token, int piece, float* out) {
  float key[kMaxDim];
  std::fill_n(out, kv.head_dim, 0.0F);
  for (int64_t i = token; i < token + piece; ++i) {
    load_row(pages.row(i, plane, kv.row_bytes()), kv.type, kv.head_dim, key);
    for (int e = 0; e < kv.head_dim; ++e) out[e] += key[e];
  }
  const float share = 1.0F / static_cast<float>(piece);
  for (int e = 0; e < kv.head_dim; ++e) out[e] = rounded(out[e] * share, kv.type);
}

void store_mean(const KvShape& kv, const PageTable& pages, size_t plane, int64_t token, int piece, std::byte* row) {
  float mean[kMaxDim];
  mean_key(kv, pages, plane, token, piece, mean);
  for (int i = 0; i < kv.head_dim; ++i) store_element(row, static_cast<size_t>(i), summary_type(kv.type), mean[i]);
}

void extend_summary(const KvShape& kv, const PageTable& pages, int layer, int chunk, int piece, int64_t sinks, int64_t chunks,
                    KeySummary& summary) {
  const int64_t held = summary.chunks;
  if (chunks <= held || kv.head_dim > kMaxDim || piece == 1) return;
  summary.chunk = chunk;
  summary.sinks = sinks;
  summary.piece = piece;
  summary.rounds = piece > 0 ? 0 : summary_rounds(chunk);
  summary.kv_heads = kv.kv_heads;
  summary.head_dim = kv.head_dim;
  summary.type = summary_type(kv.type);
  if (summary.nodes() == 0) return;
  const auto wanted = static_cast<size_t>((chunks + KeySummary::kTile - 1) / KeySummary::kTile);
  summary.tiles.reserve(wanted);
  while (summary.tiles.size() < wanted) summary.tiles.push_back(std::make_unique_for_overwrite<std::byte[]>(summary.tile_bytes()));
#pragma omp parallel for schedule(static) collapse(2)
  for (int head = 0; head < kv.kv_heads; ++head) {
    for (int64_t j = held; j < chunks; ++j) {
      const size_t plane = kv.k_offset(layer, head);
      if (piece > 0) {
        average_chunk(kv, pages, plane, head, j, summary);
      } else {
        copy_chunk(kv, pages, plane, head, j, summary);
      }
    }
  }
  summary.chunks = chunks;
}

}  // namespace bough
