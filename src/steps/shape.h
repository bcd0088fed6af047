// Shapes and views that every attention step shares. One set of letters throughout:
//   t rows of the batch, nb query blocks, hq query heads, hkv KV heads, g = hq / hkv, d head dim, lh list heads (1 or hkv).
#pragma once

#include <cstddef>
#include <cstdint>

#include "bough/types.h"

namespace bough {

// The KV cache of one model: a page holds 64 tokens of every layer, per layer K then V, each per KV head what all rows share, then the
// tokens' rows of d elements, as kv_row.h lays them out, keys un-rotated. A plane's offset is that of its first row.
struct KvShape {
  DType type = DType::bf16;
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;

  size_t row_bytes() const { return kv_row_bytes(type, head_dim); }
  size_t head_bytes() const { return kv_head_bytes(type, head_dim); }
  size_t plane_bytes() const { return head_bytes() * static_cast<size_t>(kv_heads); }
  size_t page_bytes() const { return plane_bytes() * 2 * static_cast<size_t>(layers); }
  size_t k_offset(int layer, int head) const {
    return plane_bytes() * 2 * static_cast<size_t>(layer) + head_bytes() * static_cast<size_t>(head) + kv_mean_bytes(type, head_dim);
  }
  size_t v_offset(int layer, int head) const { return k_offset(layer, head) + plane_bytes(); }
};

// One sequence's pages in text order: token i is row i % 64 of pages[i / 64].
struct PageTable {
  std::byte* const* pages = nullptr;
  int64_t length = 0;  // tokens that may be read

  const std::byte* row(int64_t token, size_t plane_offset, size_t row_bytes) const {
    return pages[token / kPageTokens] + plane_offset + static_cast<size_t>(token % kPageTokens) * row_bytes;
  }
  std::byte* row(int64_t token, size_t plane_offset, size_t row_bytes) {
    return pages[token / kPageTokens] + plane_offset + static_cast<size_t>(token % kPageTokens) * row_bytes;
  }
};

struct HeadShape {
  int heads = 0;      // hq
  int kv_heads = 0;   // hkv
  int head_dim = 0;   // d, even
  float scale = 0;    // of q.k before the softmax
  float softcap = 0;  // c > 0: a scaled score s becomes c tanh(s / c) before the softmax; 0: as it is

  int group() const { return heads / kv_heads; }
};

// What the model itself asks of one layer's attention, whatever the plan.
struct LayerAttention {
  int64_t sliding_window = 0;  // n > 0: the row at position p sees keys in (p - n, p] and no others; nothing is pruned there
  int rope = 0;                // which of the model's RoPE tables turns the layer's queries and keys
};

}  // namespace bough
