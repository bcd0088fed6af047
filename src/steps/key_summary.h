// KeySummary: the keys of one sequence and layer that the first rounds of every first-stage search score, side by side. Those rounds
// always look at the same keys of a chunk: 2 in the first, 4 in the second, and so on. A search takes them from here, one after another,
// where the pages would have to be reached in as many places; the keys and so the scores are the same. For a stage that scores pieces of
// several keys it holds their means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bough/types.h"
#include "steps/key_means.h"
#include "steps/shape.h"

namespace bough {

// Rounds whose keys are kept: as many as an eighth of a chunk's keys have room for.
constexpr int summary_rounds(int chunk) {
  int rounds = 0;
  while (2 * ((2 << rounds) - 1) * 8 <= chunk) ++rounds;
  return rounds;
}

// In round r a search looks at interval i of the 2^r that a chunk divides into, on the left (0) and on the right (1).
constexpr int summary_node(int round, int interval, int side) { return 2 * ((1 << round) - 1 + interval) + side; }

// The place in its chunk of that key.
constexpr int summary_offset(int chunk, int round, int interval, int side) {
  const int n = chunk >> round;
  return interval * n + (side == 0 ? n / 4 : n / 2 + n / 4);
}

// Keys as f32 where the cache is f32, else as the bf16 that every other type reads as.
struct KeySummary {
  static constexpr int kTile = 32;  // chunks

  int64_t chunks = 0;  // held: [sinks, sinks + chunks * chunk) of the sequence
  int chunk = 0;
  int64_t sinks = 0;
  int rounds = 0;
  int piece = 0;  // n > 0: means of runs of n keys instead of the keys of `rounds`
  int kv_heads = 0;
  int head_dim = 0;
  DType type = DType::bf16;
  // Each [kv head][node][kTile] rows, of means [kv head][kTile][node]: in the order of their text. Tiles that are made at once share their
  // memory.
  std::vector<std::shared_ptr<std::byte>> tiles;

  int nodes() const { return piece > 0 ? chunk / piece : 2 * ((1 << rounds) - 1); }
  size_t row_bytes() const { return kv_row_bytes(type, head_dim); }
  size_t tile_bytes() const { return row_bytes() * static_cast<size_t>(kTile * kv_heads * nodes()); }
  // REQUIRES: index < chunks; not of means.
  std::byte* key(int head, int64_t index, int node) const {
    const auto row = static_cast<size_t>((head * nodes() + node) * kTile + index % kTile);
    return tiles[static_cast<size_t>(index / kTile)].get() + row * row_bytes();
  }
  // Of the means: whether the one that begins at this token is held, and where.
  bool has_mean(int64_t token) const { return token < sinks + chunks * chunk; }
  std::byte* mean(int head, int64_t token) const {
    const int64_t tokens = int64_t{kTile} * chunk, index = token - sinks;
    const auto row = static_cast<size_t>(int64_t{head} * nodes() * kTile + index % tokens / piece);
    return tiles[static_cast<size_t>(index / tokens)].get() + row * row_bytes();
  }
  // Forgets the chunks that are not whole in the sequence's first `length` tokens.
  void truncate(int64_t length);
};

// What a summary is extended by: the keys, or the means of pieces, of one layer's chunks.
struct SummaryArgs {
  KvShape kv;
  PageTable pages;
  int layer = 0;
  int chunk = 0;
  int piece = 0;
  int64_t sinks = 0;
  int64_t chunks = 0;                                // how many it is to hold, each whole in the pages
  void (*key_means)(const KeyMeansArgs&) = nullptr;  // where piece > 1
};

// Copies the keys of the chunks that the summary does not hold yet, or with piece > 1 averages them; of pieces of one key it holds
// nothing. A summary keeps the chunk and piece that it began with. Throws std::bad_alloc; what it held stays.
void extend_summary(const SummaryArgs& args, KeySummary& summary);

}  // namespace bough
