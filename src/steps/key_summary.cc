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

}  // namespace

void KeySummary::truncate(int64_t length) {
  if (chunks == 0) return;
  chunks = std::min(chunks, std::max<int64_t>(0, length - sinks) / chunk);
  tiles.resize(static_cast<size_t>((chunks + kTile - 1) / kTile));
}

void extend_summary(const KvShape& kv, const PageTable& pages, int layer, int chunk, int64_t sinks, int64_t chunks, KeySummary& summary) {
  const int64_t held = summary.chunks;
  if (chunks <= held || kv.head_dim > kMaxDim) return;
  summary.chunk = chunk;
  summary.sinks = sinks;
  summary.rounds = summary_rounds(chunk);
  summary.kv_heads = kv.kv_heads;
  summary.head_dim = kv.head_dim;
  summary.type = kv.type == DType::f32 ? DType::f32 : DType::bf16;
  if (summary.rounds == 0) return;
  const auto wanted = static_cast<size_t>((chunks + KeySummary::kTile - 1) / KeySummary::kTile);
  summary.tiles.reserve(wanted);
  while (summary.tiles.size() < wanted) summary.tiles.push_back(std::make_unique_for_overwrite<std::byte[]>(summary.tile_bytes()));
  const size_t row_bytes = kv.row_bytes();
#pragma omp parallel for schedule(static) collapse(2)
  for (int head = 0; head < kv.kv_heads; ++head) {
    for (int64_t j = held; j < chunks; ++j) {
      for (int round = 0; round < summary.rounds; ++round) {
        for (int place = 0; place < 2 << round; ++place) {
          const int64_t token = sinks + j * chunk + summary_offset(chunk, round, place / 2, place % 2);
          const std::byte* from = pages.row(token, kv.k_offset(layer, head), row_bytes);
          copy_key(kv, from, summary.type, summary.key(head, j, summary_node(round, place / 2, place % 2)));
        }
      }
    }
  }
  summary.chunks = chunks;
}

}  // namespace bough
