// Launchers of the CUDA steps. Each queues its kernels on the stream and returns what CUDA says; cudaErrorNotSupported: the build has no
// kernel for these types and this head dim.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/problem.h"

namespace bough::cuda {

// Whether the build has kernels for these types and this head dim.
bool built(ElementType q, ElementType kv, int head_dim);

// Whether the build has the kernels of Tier::sm90.
bool has_sm90();

// kv_write: keys and values to where p.cache keeps their tokens.
struct WriteRows {
  const void* data = nullptr;  // row r, head h: r * row + h * head elements on, of q's type
  int64_t row = 0;
  int64_t head = 0;
};
struct WriteArgs {
  WriteRows k;
  WriteRows v;
  const int32_t* query_start = nullptr;  // [sequences + 1]; null: one row a sequence
  const int32_t* lengths = nullptr;      // [sequences]
  int32_t sequences = 0;
  int32_t rows = 0;  // upper bound
};
cudaError_t kv_write(const Problem& p, const WriteArgs& a, cudaStream_t stream);
// summarise: the means of runs of keys that end among the rows, which the cache holds; query_start null: among all tokens, at most `rows` a
// sequence. k and v are not read.
cudaError_t summarise(const Problem& p, const WriteArgs& a, cudaStream_t stream);

// place: the flat query blocks, from lengths and row counts on the device; of a decode (query_start null) one for each row.
struct PlaceArgs {
  const int32_t* query_start = nullptr;  // [sequences + 1]
  int32_t sequences = 0;
  int32_t tail = 0;             // last rows of each sequence that are blocks of their own
  BlockInfo* blocks = nullptr;  // [room] out; without rows from the last block on
  int32_t room = 0;             // at least nb
};
cudaError_t place(const Problem& p, const PlaceArgs& a, cudaStream_t stream);

// scan: scores of a stage's candidates. scan_row: of blocks with one row; `first`: no stage of the call came before. scan_rows: of blocks
// with more; `images` is scratch of image_bytes.
cudaError_t scan_row(const Problem& p, int stage, bool first, cudaStream_t stream);
size_t image_bytes(const Problem& p);
cudaError_t scan_rows(const Problem& p, int stage, void* images, Tier tier, cudaStream_t stream);

// select: the best candidates of each list, ascending, and what enters the next stage; leaves scores zero.
cudaError_t select(const Problem& p, int stage, cudaStream_t stream);

// tree: HiP's search of all blocks, in place of scan and select; `images` as of scan_rows. Leaves scores zero.
cudaError_t tree(const Problem& p, void* images, cudaStream_t stream);

// attend: softmax attention of every block over its context, straight from the pages.
cudaError_t attend(const Problem& p, Tier tier, cudaStream_t stream);

// The working set of decode: contexts kept turned, side by side.
struct WorkingSets {
  void* k = nullptr;         // [slots, hkv, capacity, d] of q's type; 16-byte pieces of a row permuted by key % 8
  void* v = nullptr;         // same
  int32_t capacity = 0;      // keys, a multiple of 256
  int32_t* shift = nullptr;  // [slots] keys held less tokens of the text, which both grow by one a step
  int32_t* w0 = nullptr;     // [slots] of the last refresh; null where keys do not move
  float* part_o = nullptr;   // [nb, hkv, splits, group, d]
  float* part_ml = nullptr;  // [nb, hkv, splits, group, 2]: greatest score, sum of exponentials
  int32_t* done = nullptr;   // [nb, hkv] zero between calls
  int32_t splits = 0;        // capacity / split_keys(d)
  bool fills = false;        // some row's set may be filled in this call
  int32_t run = 1;           // neighbouring splits that one block of threads takes
};
// Keys of a split, which one block of threads attends to at once: 64 KiB of keys and values, a quarter of it where rows are long.
constexpr int split_keys(int d) { return d <= 64 ? 256 : d <= 128 ? 128 : 64; }
// Attends. Sets of blocks that were renewed are filled from their contexts first, the others take in the row's own key. Where keys move,
// contexts that do not hold every token are turned anew at every step.
cudaError_t attend_cached(const Problem& p, const WorkingSets& w, cudaStream_t stream);

}  // namespace bough::cuda
