// Random input of the attention steps: ragged batches over one pool of physical pages in shuffled order, lists and positions.
//
// All data of a sequence depends on (seed, sequence) alone, so that one sequence by itself can be compared with the same in a batch.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "steps/attention_bodies.h"

namespace bough::test {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct CaseShape {
  DType type = DType::f32;
  int heads = 6;
  int kv_heads = 2;
  int d = 64;
  RopeLayout layout = RopeLayout::interleaved;
  int layers = 2;
  int layer = 1;
  float softcap = 0;
  int rotated = 0;  // elements of a head that turn; 0: all
  double magnitude = 1;

  int rotated_dims() const { return rotated == 0 ? d : rotated; }
  KvShape kv() const { return {type, layers, kv_heads, d}; }
  HeadShape head_shape() const;
  std::string name() const;
};

// The rows [first_row, length) of a sequence are the batch's; the tokens before are in the cache already. A block ends at every
// multiple of `block` and every tail row is a block; a decode row is first_row = length - 1.
struct SequenceSpec {
  int64_t length = 1;
  int64_t first_row = 0;
  int64_t block = 64;
  int64_t tail = 0;
  bool decode = false;
};

// What a step sees: a batch, its queries, keys and values. Page tables point into the case that made it.
struct Input {
  Batch batch;
  std::vector<float> q;  // [t, hq, d]
  std::vector<float> k;  // [t, hkv, d] as kv_write takes them, not rounded
  std::vector<float> v;

  int64_t nb() const { return static_cast<int64_t>(batch.blocks.size()); }
};

class AttentionCase {
 public:
  // Pages hold random keys and values of unit variance for all tokens and layers.
  AttentionCase(const CaseShape& shape, std::vector<SequenceSpec> sequences, uint64_t seed);

  const CaseShape& shape() const { return shape_; }
  // The sequences with these indices as one batch, in this order. REQUIRES: decode rows first.
  Input input(std::span<const int> which) const;
  Input input() const;
  Input alone(int sequence) const;
  PageTable pages(int sequence) const;

  // What the pages hold, widened to f32.
  std::vector<float> key(int sequence, int64_t token, int kv_head) const { return stored(sequence, token, kv_head, true); }
  std::vector<float> value(int sequence, int64_t token, int kv_head) const { return stored(sequence, token, kv_head, false); }
  // In i4 the page is relative to no mean from then on: equal keys read the same in every page.
  void set_key(int sequence, int64_t token, int kv_head, std::span<const float> key);
  std::span<const std::byte> pool() const { return pool_; }
  void clear_pages();  // every byte to 0xa5

  // Covers `positions`; `base` 0 turns nothing.
  RopeTable rope(int64_t positions, double base = 10000) const;

 private:
  std::vector<float> stored(int sequence, int64_t token, int kv_head, bool key) const;
  void fill(int sequence);
  void add_sequence(int sequence, Input& input) const;

  CaseShape shape_;
  std::vector<SequenceSpec> specs_;
  uint64_t seed_;
  std::vector<std::byte> pool_;
  std::vector<std::vector<std::byte*>> tables_;
};

// A generator for one thing of one sequence.
std::mt19937_64 random_of(uint64_t seed, int64_t sequence, int64_t what);
std::vector<float> normal_floats(std::mt19937_64& random, int64_t count);

struct ListSpec {
  int list_heads = 1;
  int64_t sinks = 0;
  int64_t window = 64;
  int chunk = 8;
  int64_t most = 0;     // chunks selected at most
  bool dense = false;   // w0 = 0 and nothing selected
  int64_t sliding = 0;  // a sliding window's context: no sinks, nothing selected, w0 = r0 + 1 - sliding
};

// Storage behind a BlockList.
struct Lists {
  std::vector<int64_t> w0;
  std::vector<int32_t> start;
  std::vector<int32_t> count;
  ListSpec spec;
  int64_t capacity = 0;

  BlockList view() const;
};

// Random selections; they depend on (seed, position, list head) alone.
Lists random_lists(const Batch& batch, const ListSpec& spec, uint64_t seed);

// x * scale turned by `position` in double as `shape` says, then rounded to its type as every body does.
std::vector<double> turned(std::span<const float> x, double scale, int64_t position, const CaseShape& shape);

// Attention of one query over `tokens`, the textbook way in double: token i stands at position first + i, the query at the last one's.
struct Exact {
  std::vector<float> o;
  double lse = 0;
  std::vector<double> p;  // [tokens]

  // Sums of p over groups of `keys` ranks, then zeros up to `size` ranks.
  std::vector<float> mass(int keys, int64_t size) const;
};
Exact textbook(const AttentionCase& c, int sequence, std::span<const float> q, int kv_head, std::span<const int64_t> tokens,
               int64_t first = 0);

// Relative L2 distance of a from b.
double relative_error(std::span<const float> a, std::span<const float> b);
// The largest relative_error of rows of d elements.
double worst_row(std::span<const float> a, std::span<const float> b, int d);
// The largest |a - b|; infinities must be equal.
double absolute_error(std::span<const float> a, std::span<const float> b);

bool same_bits(std::span<const float> a, std::span<const float> b);

// Runs f with a number of OpenMP threads and puts the number back.
template <typename F>
void with_threads(int threads, const F& f) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  f();
  omp_set_num_threads(before);
}

// What the arguments of every attention step share: those of a search, of attend, of attend_cached.
template <typename Args>
Args args_of(const CaseShape& shape, const Batch& batch, const std::vector<float>& q, const RopeTable& rope) {
  Args args;
  args.batch = &batch;
  args.kv = shape.kv();
  args.heads = shape.head_shape();
  if constexpr (requires { args.layer; }) args.layer = shape.layer;
  args.q = q.data();
  args.rope = &rope;
  return args;
}

// The pairs (body, KV type) that can run here.
struct BodyCase {
  std::string body;
  DType type = DType::f32;
};
void PrintTo(const BodyCase& c, std::ostream* out);
std::vector<BodyCase> body_cases();
std::string body_case_name(const testing::TestParamInfo<BodyCase>& info);
std::vector<std::string> body_names();
const AttentionBodies& body_named(const std::string& name);

// Relative L2 distance at most of a row of attention's output from the oracle's and from textbook attention; the absolute one of lse is
// the same.
double attend_tolerance(const BodyCase& c);

// A test that runs for every pair.
class BodyTest : public testing::TestWithParam<BodyCase> {
 protected:
  const AttentionBodies& body() const { return body_named(GetParam().body); }
  CaseShape shape() const { return {.type = GetParam().type}; }
};

}  // namespace bough::test
