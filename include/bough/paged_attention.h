// PagedAttention: pruning and attention of one layer over a KV cache that belongs to the caller, on plain pointers and a stream. For
// engines that have a paged cache of their own (vLLM, Transformers, SGLang); the cache may have any strides.
//
// All memory is the caller's, on one CUDA device; nothing allocates or waits for the device after create(). Lengths are read on the
// device, so calls can be captured in a CUDA graph. A result does not depend on the batch that a sequence is in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bough/attention.h"
#include "bough/status.h"

namespace bough {

enum class ElementType : uint8_t { f16, bf16, e4m3, i8 };

enum class RopePairs : uint8_t { interleaved, halves };  // which elements turn together: (2i, 2i+1), or (i, i + dims/2)

// Between neighbours, in elements.
struct Strides {
  int64_t page = 0;
  int64_t token = 0;
  int64_t head = 0;
};

struct PagedRope {
  RopePairs pairs = RopePairs::halves;
  std::vector<double> frequencies;  // [dims/2] radians a position, dims <= head_dim; the model's own scaling is in them
  double magnitude = 1;             // YaRN's attention factor
};

struct PagedShape {
  int heads = 0;                            // query heads hq, a multiple of kv_heads, at most 16 a KV head
  int kv_heads = 0;                         // at most 32
  int head_dim = 0;                         // 64, 96, 128 or 256
  ElementType q_type = ElementType::bf16;   // of q and o: f16 or bf16
  ElementType kv_type = ElementType::bf16;  // q_type, e4m3 or i8
  int page_tokens = 64;                     // tokens a page: a power of two from 8 to 1024
  float scale = 0;                          // of q.k before the softmax; 0: 1 / sqrt(head_dim)
  float softcap = 0;                        // c > 0: a scaled score s becomes c tanh(s / c)
  int64_t sliding_window = 0;               // n > 0: a row sees its own key and the n - 1 before it; nothing is pruned
  bool keys_rotated = false;                // keys and queries come turned by RoPE at their own positions: scans and attention take
                                            // them as they are, and a text is at most trained_context long
  PagedRope rope;                           // where they do not; no frequencies: nothing turns
  int64_t trained_context = 0;              // tokens; positions of scans stay below it
};

// The most that one call brings.
struct PagedLimits {
  int64_t rows = 0;    // of q
  int sequences = 0;   // at most 1024
  int64_t length = 0;  // tokens of a sequence
};

struct PagedPlane {
  const void* data = nullptr;
  int64_t sequence_stride = 0;   // elements from one sequence to the next; 0 where a page table says it all
  Strides strides;               // elements; a row's head_dim elements are contiguous and 16-byte aligned
  const float* scale = nullptr;  // of e4m3 and i8: value = stored * scale at the same place of `scale_strides`, positive; null: 1
  int64_t scale_sequence_stride = 0;
  Strides scale_strides;  // all 0: one scale for the tensor
};

struct PagedCache {
  PagedPlane k;
  PagedPlane v;
  const int32_t* page_table = nullptr;  // [sequences, table_stride] pages, of which those that hold a token are read; null: page i of
                                        // a sequence is its i-th
  int64_t table_stride = 0;
  // A thinner plane of keys, which scans read in every round over pieces of 4 * summary_step tokens or more, in all stages; such rounds
  // then read nothing of k. The key of each token t that summary_step divides is here once more, as k has it: page as in k, row
  // (t % page_tokens) / summary_step, so a page has page_tokens / summary_step rows. Where the scales of k differ by token, it has scales
  // of its own at such rows, otherwise summary.scale is null and k's hold. data null: none.
  // Where mean_keys() of the plan is n > 0 it is not optional and holds, for n = summary_step, the mean of keys [t, t + n), in q's type and
  // without scales: what the plan's stages score. Those of n keys that are all there are read.
  PagedPlane summary;
  int summary_step = 0;  // a power of two from 4 to 64, at most page_tokens and a quarter of the plan's first chunk
};

// Rows of sequence s: [query_start[s], query_start[s + 1]) of q, its last tokens; their keys are in the cache already.
struct PagedBatch {
  int sequences = 0;
  int64_t rows = 0;                      // query_start[sequences]
  const int32_t* query_start = nullptr;  // [sequences + 1], on the device
  const int32_t* lengths = nullptr;      // [sequences], on the device: tokens, these rows included
  int64_t longest = 0;                   // an upper bound of lengths
};

// Row r and head h begin at data + r * row + h * head elements. data is 16-byte aligned, row and head are multiples of 8.
struct PagedRows {
  void* data = nullptr;
  int64_t row = 0;
  int64_t head = 0;
};

// Where the selection of a prefill is, for those who want to read it.
struct PagedSelection {
  const int32_t* blocks = nullptr;  // [nb, 8]: sequence, first row in q, rows (0: none), position of the first row, w0, sinks, -, -
  const int32_t* counts = nullptr;  // [nb, 4]: selected chunks (0 where all is seen), -, -, -
  const int32_t* starts = nullptr;  // [nb, list heads, capacity] ascending
  int64_t nb = 0;
  int list_heads = 1;
  int64_t capacity = 0;
  int chunk = 0;
};

// best: the fastest kernels that the device runs; portable: those that every device from compute capability 8.0 on runs.
enum class KernelTier : uint8_t { best, portable };

class PagedAttention {
 public:
  // `plan` at `layer`; it is cut to fit the trained context as fit_plan cuts a plan chosen by name, and plan() says to what. Allocates
  // tables of angles on the current device.
  // Errors: invalid_argument (a field, its value and the limit), unsupported (what the build or the device lacks), out_of_memory.
  static Result<PagedAttention> create(const AttentionPlan& plan, int layer, const PagedShape& shape, const PagedLimits& limits,
                                       KernelTier tier = KernelTier::best);

  PagedAttention(PagedAttention&&) noexcept;
  PagedAttention& operator=(PagedAttention&&) noexcept;
  ~PagedAttention();

  const AttentionPlan& plan() const;
  // Keys of each mean that PagedCache::summary has to hold for this plan and layer; 0: none.
  int mean_keys() const;

  // Bytes of scratch that calls on one stream share; it is zero before the first call. 256-byte aligned.
  size_t workspace_bytes() const;

  // Puts keys and values of the batch's rows, [rows, kv_heads, head_dim] of q's type, where the cache keeps their tokens; of the cache
  // data and scale are written, and the summary with the keys; the mean of n keys with the last of them, from what all n read as. A row of
  // an e4m3 or i8 cache whose scales differ by token gets its greatest magnitude / 448 or / 127 as its scale, 1 where all is 0; any other
  // scale is read, and what it cannot hold is clamped. batch.query_start null: one row a sequence, none where the length is 0;
  // batch.longest is not read. Errors: as prune.
  Status write(const PagedBatch& batch, const PagedRows& k, const PagedRows& v, const PagedCache& cache, void* stream) const;

  // Puts the means of keys that end among the batch's rows, whose keys the caller has written, into cache.summary; batch.query_start null:
  // those of all tokens, and batch.rows is not read. Of the cache k and the page table are read. Errors: as prune; invalid_argument where
  // mean_keys() is 0.
  Status summarise(const PagedBatch& batch, const PagedCache& cache, void* stream) const;

  // Chooses the context of every query block: stages, or nothing where all is seen. Blocks of 64 rows in absolute positions; the last
  // plan().tail rows of each sequence choose for themselves, where the layer chooses.
  // `stream` is a cudaStream_t. Errors: invalid_argument, internal (what CUDA says).
  Status prune(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, void* workspace, void* stream) const;
  // Attention over what the last prune on this workspace chose. lse [rows, hq] or null: natural log of the sum of exponentials.
  // sink_logits [hq] or null: of each head, a learned logit that takes part in the softmax, and so in lse, and has no value.
  Status attend(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, const PagedRows& o, float* lse,
                const float* sink_logits, void* workspace, void* stream) const;
  PagedSelection selection(void* workspace) const;

  // Decode: one row a sequence, its state in a slot of `states`. Bytes for `slots` of them; zero before the first call.
  size_t state_bytes(int slots) const;
  // The first stage to run at a decode step, the counter-th (from 0) since the last append, rollback or restore, of a text of `length`
  // tokens with the row's own. stages(): none is due. Each step of a sequence adds one token and is decoded, in order.
  int due_stage(int64_t counter, int64_t length) const;
  int stages() const;
  // slot [sequences] and stage [sequences] on the device: the slot of each row, and its due_stage; least_stage: the least of them, which
  // decides what is launched. No two rows have the same slot. query_start is not read; a length of 0 leaves a row out: nothing of it is
  // written.
  Status decode(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, void* states, int slots, const int32_t* slot,
                const int32_t* stage, int least_stage, const PagedRows& o, float* lse, const float* sink_logits, void* workspace,
                void* stream) const;

 private:
  struct Impl;
  explicit PagedAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bough
