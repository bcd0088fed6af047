// AttentionPlan: the one typed configuration of Bough's attention. JSON in and out, presets by name.
//
// HiP (arXiv 2406.09827) and InfiniteHiP (arXiv 2502.08910) prune the keys of a query block in stages: the candidates are cut in
// equal chunks, each chunk is scored by a few keys found by binary descent, the best chunks go on to the next stage in smaller
// pieces. What survives is attended to together with the first `sinks` and about the last `window` keys, positions re-assigned by rank.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough {

enum class Mode : uint8_t {
  stages,     // prune in stages
  streaming,  // sinks and window only, nothing selected
  dense,      // every earlier key, true positions
};

// Which RoPE positions a stage scores with. relative: every chunk's two candidates at fixed distances from the query; no key is
// rotated. chunk_indexed: the keys of candidate j at position j.
enum class Scan : uint8_t { relative, chunk_indexed };

// Who shares a BlockList: all heads of a layer, or the query heads of one KV head.
enum class Lists : uint8_t { layer, kv_head };

// How the rows of a stride group stand for one another: their mean, the last of them, or no pooling at all.
enum class Pool : uint8_t { mean, strided, all };

struct StagePlan {
  int chunk = 0;         // tokens a chunk; a power of two from 1 to 1024 that divides the previous stage's
  int64_t keep = 0;      // tokens entering this stage; 0 in the first stage (all), after it a multiple of the previous chunk, at least k
  int query_block = 64;  // query rows that share a list in prefill: 16, 32 or 64, equal in all stages
  int query_stride = 1;  // rows a pooling group; divides query_block

  bool operator==(const StagePlan&) const = default;
};

// What layers 0 .. layers-1 do differently. k: a multiple of the last chunk, at most every keep.
struct FirstLayers {
  int layers = 0;
  int64_t k = 0;
  Scan scan = Scan::chunk_indexed;

  bool operator==(const FirstLayers&) const = default;
};

struct AttentionPlan {
  Mode mode = Mode::dense;
  int64_t sinks = 0;              // tokens, a multiple of 64 and of the last chunk
  int64_t window = 0;             // tokens, a multiple of the last chunk, at least twice the first chunk
  std::vector<StagePlan> stages;  // 1 to 4 in mode stages, otherwise empty; keeps do not increase
  int64_t k = 0;                  // tokens selected by the last stage, a multiple of its chunk
  std::optional<FirstLayers> first;
  Scan scan = Scan::relative;
  Lists lists = Lists::layer;
  Pool pool = Pool::mean;
  std::vector<int> refresh;  // decode steps between runs of each stage, each a multiple of the next, the first at most
                             // window - first chunk: what leaves the window by then is a candidate; streaming: one number
  int64_t tail = 0;          // last tokens of an append before sampling that select each for itself, at most 1024
  int64_t dense_below = 0;   // a query block that ends below this runs dense; at most the trained context

  bool operator==(const AttentionPlan&) const = default;

  // Chunk of the last stage, the grain of w0 and of the selection; 8 when there are no stages.
  int last_chunk() const { return stages.empty() ? 8 : stages.back().chunk; }
  int query_block() const { return stages.empty() ? 64 : stages.front().query_block; }
  bool is_first(int layer) const { return first && layer < first->layers; }
  int64_t k_of(int layer) const { return mode != Mode::stages ? 0 : is_first(layer) ? first->k : k; }
  int64_t max_k() const;
  Scan scan_of(int layer) const { return is_first(layer) ? first->scan : scan; }
  int last_refresh() const { return refresh.empty() ? 1 : refresh.back(); }
  // The most keys that one query can see at once: sinks + window + k + 64 (the largest query block; a longer last chunk takes its
  // place, since the window starts at a multiple of it) + the last refresh interval. 0 for dense.
  int64_t context_tokens() const;
};

// Names of the presets, in the order in which they are documented.
std::vector<std::string> preset_names();

// `spec` is a preset's name, a JSON object (first character '{') or the path of a file that holds one. The result is validated.
// Fields that are left out: as in the preset of the same mode (default, streaming or dense; mode itself: stages), and inside `first`
// as in `default`. An entry of `stages` has to name chunk and, after the first, keep; query_block is 64 and query_stride 1 unless given.
// A text is at most 64 KiB and 16 levels deep; unknown and repeated keys are errors. What a mode does not use is zero or absent.
// Errors: not_found (names the known presets), invalid_argument (the field, its value and the limit), unsupported (mode "hip"),
// io_error.
Result<AttentionPlan> parse_plan(std::string_view spec);

// One line of JSON with every field; parse_plan(plan_json(p)) == p.
std::string plan_json(const AttentionPlan& plan);

// Checks every rule named above. Errors: invalid_argument with the field, its value and the limit.
Status validate_plan(const AttentionPlan& plan);

struct FittedPlan {
  AttentionPlan plan;
  std::string note;  // empty, or one sentence that says what was cut and why
};

// Makes sure that positions stay inside the context that the model was trained on: context_tokens() <= trained_context. A plan
// chosen by name is cut to fit and the cut is said: k and first.k to the largest multiple of the last chunk that fits and, where none
// is left, the window to half of what sinks and query block leave. An explicit plan (JSON) is refused with both numbers.
// Errors: invalid_argument.
Result<FittedPlan> fit_plan(const AttentionPlan& plan, int64_t trained_context, bool explicit_plan);

}  // namespace bough
