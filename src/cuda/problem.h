// What the CUDA steps work on: plain structs that host code fills and kernels take by value. Pointers are device memory; nothing here
// allocates. Letters as in steps/shape.h: t rows, nb query blocks, hq query heads, hkv KV heads, g = hq / hkv, d head dim, lh list heads.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "bough/attention.h"
#include "bough/paged_attention.h"
#include "steps/rope.h"
#include "steps/tree_shape.h"

namespace bough::cuda {

inline constexpr int kMaxStages = 4;

// What a call does with a query block.
enum class Renewal : int32_t {
  cached,    // decode: the context of the last refresh grows by the row's own token
  complete,  // the context holds every token, or every one that a sliding window or a streaming layer sees
  search,    // the stages from `first` on run
};

// Rows [r0, r0 + rows) of one sequence that share a context.
struct alignas(32) BlockInfo {
  int32_t seq = 0;
  int32_t row = 0;    // first row in q
  int32_t rows = 0;   // 0: no block; at most 64
  int32_t r0 = 0;     // absolute position of the first row
  int32_t w0 = 0;     // first token of the last interval of the context
  int32_t sinks = 0;  // tokens of its first interval
  Renewal renewal = Renewal::complete;
  int32_t first = 0;  // first stage that runs; the number of stages: none
};

// The candidates of one owner's stage: `parents` chunks of the stage before, each in pieces of this stage's chunk, then `added` chunks
// from `end` on. Of a selection only `parents` counts.
struct alignas(16) Meta {
  int32_t parents = 0;
  int32_t end = 0;
  int32_t added = 0;
  int32_t zero = 0;
};

// Lists of owners: a query block owns its lists in prefill, a sequence's slot in decode. Index i < stages: what enters stage i (of the
// first stage's grid nothing is stored); index `stages`: what was selected.
struct Lists {
  int32_t* start[kMaxStages + 1] = {};  // [owners, lh, capacity[i]] ascending
  Meta* meta[kMaxStages + 1] = {};      // [owners]
  int32_t capacity[kMaxStages + 1] = {};
};

// What a block sees, by where it ends; and of decode which rows there are and what is due for them.
struct Placement {
  const int32_t* lengths = nullptr;  // [sequences] tokens, the call's rows included
  int32_t window = 0;                // of the plan
  int32_t selected = 0;              // tokens that a selection holds
  int32_t dense_below = 0;           // a block that ends below this sees everything
  bool dense = false;                // every block sees everything
  int32_t last_shift = 3;            // logarithm of the grain of w0
  const int32_t* stage = nullptr;    // decode: [sequences] first stage that is due
  int32_t due_limit = 1;             // a stage from this on: nothing is due
};

// Chunks and pieces are powers of two; shifts are their logarithms.
struct Stages {
  int32_t count = 0;
  int32_t chunk[kMaxStages] = {};
  int32_t shift[kMaxStages] = {};
  int32_t rounds[kMaxStages] = {};  // of a descent
  int32_t piece[kMaxStages] = {};   // n > 0: no descent; the means of runs of n keys score a chunk, 1: every key
  int32_t piece_shift[kMaxStages] = {};
  int32_t row_piece[kMaxStages] = {};  // n > 0: in place of rounds or piece for blocks of one row
  int32_t stride[kMaxStages] = {};     // query rows a pooling group
  int32_t keep[kMaxStages] = {};       // chunks that survive each stage
  int32_t row_keep[kMaxStages] = {};   // the same in blocks of one row

  BOUGH_HD int32_t keep_of(int stage, int rows) const { return rows == 1 ? row_keep[stage] : keep[stage]; }
  BOUGH_HD int32_t most_kept(int stage) const { return keep[stage] < row_keep[stage] ? row_keep[stage] : keep[stage]; }
};

// A tree search in place of stages: its key block is the chunk of the one stage that there is, its selection what that stage keeps.
struct Tree {
  int32_t branches = 0;  // k / key block; 0: stages search
  int32_t key_stride = 1;
  Representative rep = Representative::center;
  Branch* halves = nullptr;  // [nb, lh, 2, 2 branches]: of this round and the one before
  int32_t* live = nullptr;   // [nb, lh] halves of this round; 0: the search is finished
};

// (magnitude cos, magnitude sin) of position p: high[p / 64] turned on by low[p % 64].
struct Angles {
  const float* high = nullptr;  // [positions / 64, pairs, 2], the magnitude in it
  const float* low = nullptr;   // [64, pairs, 2]
  int32_t pairs = 0;            // 0: nothing turns; even, and a multiple of 8 where the layout is halves
  RopeLayout layout = RopeLayout::halves;
  float magnitude = 1;
};

// As Strides, each below 2^31.
struct Steps {
  int32_t page = 0;
  int32_t token = 0;
  int32_t head = 0;
};

// One layer's cache. Element (token, head, e) of sequence s: s * sequence + page * strides.page + (token % page) * strides.token +
// head * strides.head + e, page = table ? table[s * table_stride + token / page size] : token / page size.
struct Plane {
  const void* data = nullptr;
  int64_t sequence = 0;
  Steps strides;
  const float* scale = nullptr;  // null: 1
  int64_t scale_sequence = 0;
  Steps scale_strides;
};
struct Cache {
  Plane k;
  Plane v;
  const int32_t* table = nullptr;
  int64_t table_stride = 0;
  int32_t page_shift = 6;
  // Keys of the tokens that 1 << summary_shift divides: a cache of tokens t >> summary_shift in pages of as many fewer.
  Plane summary;                     // data null: none
  int64_t summary_from = 0;          // elements from k.data to summary.data
  int32_t summary_shift = 0;         // at most page_shift
  int32_t summary_span = INT32_MAX;  // a round over this many tokens or more reads it
  bool means = false;                // instead of those keys it holds the mean of each run of as many, of q's type
};

// Whether keys before the window move with the query block: kernels compiled for that attend, and working sets last for one step.
constexpr bool moves(Positions p) { return p == Positions::streaming || p == Positions::infllm || p == Positions::dynamic_extend; }

struct Problem {
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t group = 1;
  int32_t d = 0;
  ElementType q_type = ElementType::bf16;
  ElementType kv_type = ElementType::bf16;
  float scale = 1;
  float softcap = 0;
  int32_t sliding = 0;                 // n > 0: a row sees its own key and the n - 1 before it
  const float* sink_logits = nullptr;  // [hq] or null

  const void* q = nullptr;  // row r, head h: r * q_row + h * q_head elements on
  int64_t q_row = 0;
  int64_t q_head = 0;
  void* o = nullptr;  // as q
  int64_t o_row = 0;
  int64_t o_head = 0;
  float* lse = nullptr;  // [t, hq] or null

  Cache cache;
  Angles angles;
  Positions positions = Positions::rank;  // of final attention; with angles.pairs == 0 nothing turns

  Placement placement;
  const BlockInfo* blocks = nullptr;  // [nb]; null in decode, where block_at says what they would hold
  const int32_t* owner = nullptr;     // [nb] decode: the slot of each row; null, prefill: a block is its own owner
  int32_t nb = 0;                     // upper bound; those behind the last have rows == 0
  int32_t list_heads = 1;
  Lists lists;
  Stages stages;
  Tree tree;
  int32_t sinks = 0;

  Scan scan = Scan::relative;
  Pool pool = Pool::mean;
  bool as_given = false;  // keys and queries come rotated: nothing is turned
  int32_t scan_window = 0;
  int32_t trained_context = 0;

  void* turned = nullptr;               // [nb, 2, hq, d] of q's type: scratch of scan_row
  uint32_t* scores = nullptr;           // [nb, lh, score_capacity]; zero between stages
  int32_t score_capacity = 0;           // candidates of a stage at most
  int32_t candidates[kMaxStages] = {};  // of each stage at most in this call
};

// The problem whose cache is the means that a stage scores, one for each piece of the text. REQUIRES: p.stages.piece[stage] > 1.
inline Problem of_means(const Problem& p) {
  Problem means = p;
  means.kv_type = p.q_type;
  means.cache.k = p.cache.summary;
  means.cache.page_shift -= p.cache.summary_shift;
  return means;
}

// Kernels of which generation of devices run; portable ones run on all.
enum class Tier : uint8_t { portable, sm90 };

}  // namespace bough::cuda
