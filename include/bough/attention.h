// AttentionPlan: the one typed configuration of Bough's attention. JSON in and out, presets by name.
//
// HiP (arXiv 2406.09827) and InfiniteHiP (arXiv 2502.08910) prune the keys of a query block in stages: the candidates are cut in
// equal chunks, each chunk is scored by a few keys found by binary descent, the best chunks go on to the next stage in smaller
// pieces. What survives is attended to together with the first `sinks` and about the last `window` keys, positions re-assigned by rank.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough {

enum class Mode : uint8_t {
  stages,     // prune in stages (InfiniteHiP)
  hip,        // prune by a search in a binary tree of key blocks (HiP)
  streaming,  // sinks and window only, nothing selected
  dense,      // every earlier key, true positions
};

// Which RoPE positions a search scores with. relative: every candidate at fixed distances from the query; no key is rotated.
// chunk_indexed: the keys of candidate j at position j. infllm: every key at 0, the query at the scan's window. dynamic_extend:
// true positions, those before the last quarter of the trained context squeezed into it. self_extend: true positions within the
// trained context, farther off groups of neighbours share one.
enum class Scan : uint8_t { relative, chunk_indexed, infllm, dynamic_extend, self_extend };

// Which RoPE positions the final attention uses. rank: the order in the small context. streaming: sinks, selected keys and window as
// one run that ends at the query's own position. infllm: every key before the window at one position. dynamic_extend: a blend of
// streaming with squeezed true positions. true_positions ("true"): none is re-assigned.
enum class Positions : uint8_t { rank, streaming, infllm, dynamic_extend, true_positions };

// Who shares a BlockList: all heads of a layer, or the query heads of one KV head.
enum class Lists : uint8_t { layer, kv_head };

// How the rows of a stride group stand for one another: their mean, the last of them, or no pooling at all.
enum class Pool : uint8_t { mean, strided, all };

// Which key block speaks for a branch of the tree.
enum class Representative : uint8_t { center, first, last };

struct StagePlan {
  int chunk = 0;         // tokens a chunk; a power of two from 1 to 1024 that divides the previous stage's
  int64_t keep = 0;      // tokens entering this stage; 0 in the first stage (all), after it a multiple of the previous chunk, at least k
  int query_block = 64;  // query rows that share a list in prefill: 16, 32 or 64, the same in all stages, layers and trees
  int query_stride = 1;  // rows a pooling group; divides query_block
  int rounds = 0;        // rounds of a chunk's descent, two keys each; 0: all, log2(chunk) + 1, which is the most
  int piece = 0;         // n > 0: no descent; a chunk is scored by the means of its runs of n keys, 1: by every key. Divides chunk
  int row_piece = 0;     // n > 0: in place of rounds or piece for query blocks of one row (decode, a prompt's tail); 0 in the first stage
  int64_t row_keep = 0;  // n > 0: in place of keep for the same blocks; 0 in the first stage

  // As a query block of so many rows runs it: row_piece and row_keep are resolved.
  StagePlan of_block(int rows) const;

  // Never 0.
  int descent_rounds() const { return rounds > 0 ? rounds : static_cast<int>(std::bit_width(static_cast<unsigned>(chunk))); }

  // Keys or means that one chunk is scored by.
  int probes() const { return piece > 0 ? chunk / piece : 2 * descent_rounds(); }
  bool operator==(const StagePlan&) const = default;
};

// HiP's tree search: k / key_block branches are halved until each is one key block.
struct TreePlan {
  int64_t k = 512;       // tokens selected: a multiple of key_block
  int query_block = 64;  // as in StagePlan
  int query_stride = 2;  // every so many rows score, the last of each group; divides query_block
  int key_block = 2;     // keys that are selected together, the tree's grain: a power of two from 1 to 64
  int key_stride = 1;    // every so many keys of a block score; divides key_block
  Representative rep = Representative::center;
  int refresh = 8;  // decode steps between searches, at most the window
  bool operator==(const TreePlan&) const = default;
};

// What layers 0 .. layers-1 do differently in mode stages. k: a multiple of the last chunk, at most every keep.
struct FirstLayers {
  int layers = 0;
  int64_t k = 0;
  Scan scan = Scan::chunk_indexed;
  bool operator==(const FirstLayers&) const = default;
};

// What the named layers do differently; whatever is left out is as in the plan, `first` included. A layer is named once at most and
// has no effect on a model that has fewer.
struct LayerOverride {
  std::vector<int> layers;  // 0 to 1023, ascending
  std::optional<Mode> mode;
  std::optional<int64_t> sinks;
  std::optional<int64_t> window;
  std::optional<std::vector<StagePlan>> stages;  // as many as every other layer with stages has
  std::optional<int64_t> k;                      // in mode hip: of the tree
  std::optional<int64_t> row_k;
  std::optional<TreePlan> tree;
  std::optional<Scan> scan;
  std::optional<Positions> positions;
  bool operator==(const LayerOverride&) const = default;
};

// What one layer does, everything resolved. What its mode does not use is empty.
struct LayerPlan {
  Mode mode = Mode::dense;
  int64_t sinks = 0;
  int64_t window = 0;
  std::vector<StagePlan> stages;
  int64_t k = 0;      // tokens selected, by stages or tree
  int64_t row_k = 0;  // n > 0: what query blocks of one row select at most
  TreePlan tree;
  Scan scan = Scan::relative;
  Positions positions = Positions::true_positions;
  std::vector<int> refresh;  // stages: one interval each; hip, streaming: one; dense: none
  bool operator==(const LayerPlan&) const = default;

  // Grain of w0 and of the selection: the last stage's chunk, the tree's key block, otherwise 8.
  int last_chunk() const { return mode == Mode::hip ? tree.key_block : stages.empty() ? 8 : stages.back().chunk; }
  int last_refresh() const { return refresh.empty() ? 1 : refresh.back(); }
  // Tokens that a query block of so many rows selects.
  int64_t selected(int rows) const { return rows == 1 && row_k > 0 && row_k < k ? row_k : k; }
  // Tokens that survive a stage in such a block: what enters the next one, or the selection.
  int64_t kept_after(size_t stage, int rows) const;
  // The most keys that one query can see at once: sinks + window + k + 64 (the largest query block; a longer last
  // chunk takes its place, since the window starts at a multiple of it) + the last refresh interval. 0 for dense.
  int64_t context_tokens() const;
};

// A field that no layer uses is zero or absent.
struct AttentionPlan {
  Mode mode = Mode::dense;
  int64_t sinks = 0;              // tokens, a multiple of 64 and of the last chunk
  int64_t window = 0;             // tokens, a multiple of the last chunk, at least twice the first chunk
  std::vector<StagePlan> stages;  // 1 to 4 in mode stages; keeps do not increase
  int64_t k = 0;                  // tokens selected by the last stage, a multiple of its chunk
  int64_t row_k = 0;              // n > 0: query blocks of one row (decode, a prompt's tail) select at most so many; as k
  std::optional<TreePlan> tree;   // of mode hip
  std::optional<FirstLayers> first;
  Scan scan = Scan::relative;
  Positions positions = Positions::rank;  // of every layer that is not dense
  Lists lists = Lists::layer;
  Pool pool = Pool::mean;
  std::vector<int> refresh;  // decode steps between runs of each stage, each a multiple of the next, the first at most
                             // window - first chunk: what leaves the window by then is a candidate. Streaming layers: the last
                             // interval, the only one where no layer has stages. Mode hip has its own
  int64_t tail = 0;          // last tokens of an append before sampling that select each for itself, at most 1024
  int64_t dense_below = 0;   // a query block that ends below this runs dense; at most the trained context
  std::vector<LayerOverride> layers;

  bool operator==(const AttentionPlan&) const = default;

  // The one place where `first` and `layers` resolve.
  LayerPlan layer(int index) const;
  // Every different layer there can be: that of the plan itself first, then those of `first` and of `layers`.
  std::vector<LayerPlan> distinct_layers() const;
  // Rows of a query block in prefill.
  int query_block() const;
  // The following: the most over all layers.
  int64_t max_k() const;
  int64_t context_tokens() const;
  int longest_refresh() const;
};

// Names of the presets, in the order in which they are documented.
std::vector<std::string> preset_names();

// `spec` is a preset's name, a JSON object (first character '{') or the path of a file that holds one. The result is validated.
// Fields that are left out: as in the preset of the same mode (default, hip, streaming or dense; mode itself: stages), inside `first`
// as in `default`, inside `tree` as in `hip`. An entry of `stages` has to name chunk and, after the first, keep; query_block is 64,
// query_stride 1, rounds, piece, row_piece and row_keep 0 unless given. An entry of `layers` has to name its layers.
// The configuration format of InfiniteHiP's authors (mask_refresh_interval, dense_layers, ...) is read too, where it asks for nothing
// that cannot be honoured.
// A text is at most 64 KiB and 16 levels deep; unknown and repeated keys are errors.
// Errors: not_found (names the known presets), invalid_argument (the field, its value and the limit), unsupported
// (a setting of the authors' format), io_error.
Result<AttentionPlan> parse_plan(std::string_view spec);

// One line of JSON with every field; parse_plan(plan_json(p)) == p.
std::string plan_json(const AttentionPlan& plan);

// Checks every rule named above. Errors: invalid_argument with the field, its value and the limit.
Status validate_plan(const AttentionPlan& plan);

// Tokens below which dense attention is the faster way on a CUDA device of this compute capability: a value for dense_below. Measured on
// 9.0 (an H200, docs/cuda.md); every other answer is an estimate.
int64_t break_even_tokens(int major, int minor);

struct FittedPlan {
  AttentionPlan plan;
  std::string note;  // empty, or one sentence that says what was cut and why
};

// Makes sure that positions stay inside the context that the model was trained on: context_tokens() <= trained_context. A plan
// chosen by name is cut to fit and the cut is said: k and first.k to the largest multiple of the last chunk that fits and, where none
// is left, the window to half of what sinks and query block leave. An explicit plan (JSON), or one with `layers`, is refused with both
// numbers.
// Errors: invalid_argument.
Result<FittedPlan> fit_plan(const AttentionPlan& plan, int64_t trained_context, bool explicit_plan);

}  // namespace bough
