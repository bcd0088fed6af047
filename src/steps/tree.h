// tree: HiP's search (arXiv 2406.09827) for the key blocks that a query block attends to.
//
// The candidates [sinks, w0) of a block are B key blocks. n = k / key_block branches, runs of neighbouring key blocks, cover them. Each
// round halves every branch, lets one key block speak for each half and keeps the n best halves, until all are single key blocks: those
// are selected. With B <= n there is nothing to choose. A half's score is the best product of the query rows with the keys of its
// representative, over all heads that share the list; of equal scores the lower start wins.
//
// Query rows are the last of each stride group of absolute positions, scaled, rotated in fp32 and rounded once to the cache's type;
// scores are fp32. Positions are those of a scan whose candidates are the live halves of a round in text order, at most 2 n of them.
// A tree compares keys at any distance with one another, so a relative scan has one distance here, the window: queries stand there and
// no key is rotated.
#pragma once

#include <algorithm>
#include <cstdint>

#include "steps/scan.h"
#include "steps/tree_shape.h"

namespace bough {

struct TreeArgs {
  const Batch* batch = nullptr;
  KvShape kv;
  HeadShape heads;
  int layer = 0;
  const float* q = nullptr;         // [t, hq, d] un-rotated, not scaled
  const uint8_t* active = nullptr;  // [nb] blocks to search; others are left alone
  const int64_t* w0 = nullptr;      // [nb] candidates are [sinks, w0): whole key blocks
  int64_t sinks = 0;
  TreePlan tree;
  int list_heads = 1;  // lh: 1 or hkv
  Scan scan = Scan::relative;
  int64_t window = 0;           // where the queries of a relative scan stand
  int64_t trained_context = 0;  // positions of other scans stay below this
  const RopeTable* rope = nullptr;
  int32_t* start = nullptr;      // [nb, lh, capacity] out, ascending
  int32_t* count = nullptr;      // [nb] out: min(n, B)
  int64_t capacity = 0;          // at least the largest count
  int64_t* keys_read = nullptr;  // [nb] out: keys scored, over rounds and KV heads
};

inline int64_t tree_branches(const TreePlan& tree) { return tree.k / tree.key_block; }

inline int64_t tree_blocks(const TreeArgs& a, int64_t block) { return std::max<int64_t>(0, a.w0[block] - a.sinks) / a.tree.key_block; }

}  // namespace bough
