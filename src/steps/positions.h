// Where the keys of a context and the queries that attend to it stand in the final attention.
//
// S sinks, M selected tokens, [w0, r1) the rest of the context, r0 the block's first row, W the plan's window, Lt the trained context;
// p a row's own position, i a key's, t a selected key's place among the selected:
//   rank            the order in the context, queries last
//   streaming       query p; selected max(0, t + r0 + 1 - W - M); sink max(0, i + r0 + 1 - W - M - S); from w0 on i
//   infllm          query p; sinks and selected max(0, r0 - W); from w0 on i
//   dynamic-extend  query p; cosine and sine of a key 0.75 of streaming's + 0.25 of f(i)'s: i from r1 - Lt/4 on or while r1 <= Lt,
//                   before it i squeezed evenly into Lt
//   true            query p; key i
// All but rank are counted from the least of them on, so that angles stay small; only differences matter. A context that holds every
// token from 0 on is numbered by rank, which is the true position.
#pragma once

#include <cstdint>

#include "bough/attention.h"
#include "steps/block_list.h"
#include "steps/rope.h"

namespace bough {

struct PositionRule {
  Positions positions = Positions::rank;
  int64_t window = 0;           // W
  int64_t trained_context = 0;  // Lt
};

class ContextPositions {
 public:
  // The context has to outlive this.
  ContextPositions(const PositionRule& rule, const Context& context, int64_t r0);

  // Keys stand at their ranks.
  bool by_rank() const { return kind_ == Positions::rank; }
  // Of the row at position p; 0 where the row sees nothing.
  int64_t query(int64_t p) const;
  // Of the key of one rank, streaming's part under dynamic-extend.
  int64_t key(int64_t rank) const;
  // Cosines and sines [pairs] of the key of one rank.
  void angles(const RopeTable& rope, int64_t rank, float* cos, float* sin) const;

  // Positions of the table that a layer under this rule needs, for contexts of at most `keys` keys and texts of `length` tokens.
  static int64_t table_positions(const PositionRule& rule, int64_t keys, int64_t length);

 private:
  int64_t placed(int64_t rank) const;
  int64_t squeezed(int64_t rank) const;

  const Context& context_;
  Positions kind_;
  int64_t window_;
  int64_t trained_;
  int64_t r0_;
  int64_t base_ = 0;
};

}  // namespace bough
