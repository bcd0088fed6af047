#include "steps/key_summary.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "steps/kv_row.h"

namespace bough {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

struct Free {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};

// Many tiles, as a restored sequence needs them at once, lie in large pages where the system has some: to bring in small ones would cost
// as much as to fill them.
void add_tiles(size_t wanted, KeySummary& summary) {
  const size_t held = summary.tiles.size();
  if (wanted <= held) return;
  const size_t bytes = summary.tile_bytes(), all = (wanted - held) * bytes;
  summary.tiles.reserve(wanted);
  const std::shared_ptr<std::byte> block(static_cast<std::byte*>(::operator new (all, std::align_val_t{64})), Free());
  const auto ahead = (kLargePage - reinterpret_cast<uintptr_t>(block.get()) % kLargePage) % kLargePage;
  if (all > ahead + kLargePage)
    madvise(block.get() + ahead, (all - ahead) / kLargePage * kLargePage, MADV_HUGEPAGE);  // a refusal costs speed
  for (size_t i = 0; i < wanted - held; ++i) summary.tiles.emplace_back(block, block.get() + i * bytes);
}

void copy_key(const KvShape& kv, const std::byte* from, DType type, std::byte* to) {
  if (kv.type == type) {
    std::memcpy(to, from, kv.row_bytes());
    return;
  }
  float x[kMaxMeanDim];
  load_row(from, kv.type, kv.head_dim, x);
  for (int i = 0; i < kv.head_dim; ++i) store_element(to, static_cast<size_t>(i), type, x[i]);
}

// The keys that the descent's rounds score.
void copy_chunk(const SummaryArgs& a, size_t plane, int head, int64_t index, const KeySummary& summary) {
  for (int round = 0; round < summary.rounds; ++round) {
    for (int place = 0; place < 2 << round; ++place) {
      const int64_t token = a.sinks + index * a.chunk + summary_offset(a.chunk, round, place / 2, place % 2);
      copy_key(a.kv, a.pages.row(token, plane, a.kv.row_bytes()), summary.type,
               summary.key(head, index, summary_node(round, place / 2, place % 2)));
    }
  }
}

void average_chunk(const SummaryArgs& a, size_t plane, int head, int64_t index, const KeySummary& summary) {
  KeyMeansArgs means{a.kv, a.pages, plane, a.sinks + index * a.chunk, a.piece, summary.nodes()};
  means.out = summary.mean(head, means.token);
  means.stride = summary.row_bytes();
  a.key_means(means);
}

}  // namespace

void KeySummary::truncate(int64_t length) {
  if (chunks == 0) return;
  chunks = std::min(chunks, std::max<int64_t>(0, length - sinks) / chunk);
  tiles.resize(static_cast<size_t>((chunks + kTile - 1) / kTile));
}

void extend_summary(const SummaryArgs& a, KeySummary& summary) {
  const int64_t held = summary.chunks;
  if (a.chunks <= held || a.kv.head_dim > kMaxMeanDim || a.piece == 1) return;
  summary.chunk = a.chunk;
  summary.sinks = a.sinks;
  summary.piece = a.piece;
  summary.rounds = a.piece > 0 ? 0 : summary_rounds(a.chunk);
  summary.kv_heads = a.kv.kv_heads;
  summary.head_dim = a.kv.head_dim;
  summary.type = mean_type(a.kv.type);
  if (summary.nodes() == 0) return;
  add_tiles(static_cast<size_t>((a.chunks + KeySummary::kTile - 1) / KeySummary::kTile), summary);
#pragma omp parallel for schedule(static)
  for (int64_t j = held; j < a.chunks; ++j) {
    for (int head = 0; head < a.kv.kv_heads; ++head) {
      const size_t plane = a.kv.k_offset(a.layer, head);
      if (a.piece > 0) {
        average_chunk(a, plane, head, j, summary);
      } else {
        copy_chunk(a, plane, head, j, summary);
      }
    }
  }
  summary.chunks = a.chunks;
}

}  // namespace bough
