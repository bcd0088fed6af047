// Random texts for PagedAttention: shapes, plans and what keys, values and queries hold.
//
// Everything of a text depends on (seed, text id) alone, so that one text by itself can be compared with the same in a batch.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "bough/paged_attention.h"

namespace bough::test {

// Where a cache keeps its rows. token_major: [page][token][head], as vLLM. head_major: [page][head][token]. together:
// [page][K, V][token][head]. contiguous: [sequence][head][token] without a page table, as Transformers.
enum class Layout : uint8_t { token_major, head_major, together, contiguous };

// Scales of a quantised cache. head: one a KV head; token: one a token and head; exact: the same, powers of two.
enum class Scales : uint8_t { none, tensor, head, token, exact };

struct Text {
  int64_t length = 1;
  int64_t rows = 1;  // its last tokens, which are the queries
};

struct PagedSpec {
  std::string name;
  PagedShape shape;
  AttentionPlan plan;
  int layer = 0;
  KernelTier tier = KernelTier::best;
  Layout layout = Layout::token_major;
  Scales scales = Scales::none;
  int summary_step = 0;  // n > 0: the cache has a summary of every n-th key
  int pad = 0;           // 16-byte pieces between neighbours of every axis, of the cache and of q and o
  float gain = 1;        // of q: above 1 few keys have most of the weight
  std::vector<Text> texts;
  uint64_t seed = 1;
};
std::ostream& operator<<(std::ostream& out, const PagedSpec& spec);
std::string spec_name(const testing::TestParamInfo<PagedSpec>& info);

// A shape with RoPE of base 10000 over all of a head, for texts trained up to 4096 tokens.
PagedShape shape_of(int heads, int kv_heads, int head_dim, ElementType q, ElementType kv);
void set_rope(PagedShape& shape, int dims, RopePairs pairs, double magnitude = 1);
// A plan in mode stages; refresh intervals end with 8, 4, 2.
AttentionPlan stages_plan(int64_t sinks, int64_t window, std::vector<StagePlan> stages, int64_t k);
// A tree in place of stages, over texts longer than sinks + window + tree.k; searches at every fourth step.
AttentionPlan tree_plan(int64_t sinks, int64_t window, TreePlan tree);
// Three stages that prune texts from 449 tokens on.
AttentionPlan small_plan();

// What a call sees of a text: its first `length` tokens, the last `rows` of which are queries.
struct Part {
  int text = 0;
  int64_t length = 0;
  int64_t rows = 0;
};
int64_t rows_of(std::span<const Part> parts);

class PagedCase {
 public:
  // Texts may grow by `growth` tokens.
  explicit PagedCase(PagedSpec spec, int64_t growth = 0);

  const PagedSpec& spec() const { return spec_; }
  const PagedShape& shape() const { return spec_.shape; }
  float scale() const;  // of q.k
  int64_t window() const { return spec_.shape.sliding_window; }
  std::vector<Part> parts() const;  // all texts, as the spec says
  int64_t capacity(int text) const { return spec_.texts[static_cast<size_t>(text)].length + growth_; }
  PagedLimits limits() const;

  // One row of the cache: [head_dim] elements as stored, their scale, and what they read as.
  std::span<const std::byte> stored(bool key, int text, int64_t token, int head) const;
  float stored_scale(bool key, int text, int64_t token, int head) const;
  std::vector<float> row(bool key, int text, int64_t token, int head) const;
  // Keys of each mean that the plan's stages score; 0: none.
  int mean_keys() const;
  // Of keys [token, token + mean_keys()), [head_dim] elements of q's type.
  std::vector<std::byte> mean(int text, int64_t token, int head) const;
  // Can bf16 hold what every row reads as?
  bool is_bf16() const;
  // [heads, head_dim] values of q's type.
  std::vector<float> query(int text, int64_t position) const;
  std::vector<float> queries(std::span<const Part> parts) const;  // [t, heads, head_dim]
  std::vector<float> sink_logits() const;                         // [heads]

 private:
  std::vector<std::byte> stored_rows(bool key, int text) const;

  PagedSpec spec_;
  int64_t growth_;
  std::vector<std::vector<std::byte>> keys_;  // of each text [capacity, kv heads, head_dim]
  std::vector<std::vector<std::byte>> values_;
};

// How far results may be from the oracle's. Outputs: relative L2 distance of a row, and the absolute one of lse.
//   bf16, 1e-2: weights and outputs rounded to 8 bits give 2e-3 to 5e-3; the oracle rounds q and turned keys as the device does.
//   bf16 over a cache that bf16 cannot hold, 1.5e-2: the oracle works in f32, so that the rounding of q and keys adds about 5e-3.
//   f16, 4e-3: the same with 11 bits, about 1e-3.
// The errors of what the oracle does not round grow with q.
double output_tolerance(const PagedCase& c);
// The same against textbook attention in double, where nothing is rounded.
double textbook_tolerance(const PagedCase& c);
// Of scores, relative to the spread of a stage's scores.
double score_tolerance(const PagedCase& c);

// Relative L2 distance of a from b; infinite where a is not finite.
double relative_distance(std::span<const float> a, std::span<const float> b);

}  // namespace bough::test
