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

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"
#include "bough/attention.h"
#include "steps/block_list.h"
#include "steps/rope.h"

namespace bough {

struct PositionRule {
  Positions positions = Positions::rank;
  int64_t window = 0;           // W
  int64_t trained_context = 0;  // Lt
};

inline constexpr float kStreamingShare = 0.75F;  // of a key's cosine and sine under dynamic-extend

// What follows from a context's lengths alone: the tokens of its keys are the caller's to know.
class TokenPositions {
 public:
  // `before`: S + M, keys before w0. The block's rows are [r0, r1).
  BOUGH_HD TokenPositions(const PositionRule& rule, int64_t before, int64_t w0, int64_t r0, int64_t r1)
      : kind_(w0 == 0 ? Positions::rank : rule.positions),
        before_(before),
        end_(r0 + 1 - rule.window),
        trained_(rule.trained_context),
        w0_(w0),
        r0_(r0),
        r1_(r1) {
    if (by_rank() || kind_ == Positions::true_positions) return;
    base_ = std::min(placed(0, w0), w0);
    if (blends()) base_ = std::min(base_, std::max<int64_t>(0, r1 - trained_));
  }

  // Keys stand at their ranks.
  BOUGH_HD bool by_rank() const { return kind_ == Positions::rank; }
  // A key's cosines and sines are those of two positions.
  BOUGH_HD bool blends() const { return kind_ == Positions::dynamic_extend; }
  // Of the row at position p; 0 where the row sees nothing.
  BOUGH_HD int64_t query(int64_t p) const { return std::max<int64_t>(0, by_rank() ? before_ + p - w0_ : p - base_); }
  // Of the key of one rank, which is `token`; streaming's part under dynamic-extend.
  BOUGH_HD int64_t key(int64_t rank, int64_t token) const { return placed(rank, token) - base_; }
  // f's part under dynamic-extend.
  BOUGH_HD int64_t squeezed(int64_t token) const {
    const int64_t near = trained_ / 4;
    if (r1_ <= trained_ || token >= r1_ - near) return token - base_;
    const int64_t edge = std::max<int64_t>(1, r0_ - near);
    return std::max(r1_ - trained_, edge + (token - edge) * (trained_ - near) / edge) - base_;
  }

 private:
  BOUGH_HD int64_t placed(int64_t rank, int64_t token) const {
    if (by_rank()) return rank;
    if (rank >= before_ || kind_ == Positions::true_positions) return token;
    return std::max<int64_t>(0, kind_ == Positions::infllm ? end_ - 1 : rank - before_ + end_);
  }

  Positions kind_;
  int64_t before_;
  int64_t end_;  // of the selected keys under streaming
  int64_t trained_;
  int64_t w0_;
  int64_t r0_;
  int64_t r1_;
  int64_t base_ = 0;
};

class ContextPositions {
 public:
  // The context has to outlive this.
  ContextPositions(const PositionRule& rule, const Context& context, int64_t r0)
      : context_(context), of_(rule, context.sinks + context.selected, context.w0, r0, context.r1) {}

  bool by_rank() const { return of_.by_rank(); }
  int64_t query(int64_t p) const { return of_.query(p); }
  // Of the key of one rank, streaming's part under dynamic-extend.
  int64_t key(int64_t rank) const { return of_.key(rank, context_.token(rank)); }
  // Cosines and sines [pairs] of the key of one rank.
  void angles(const RopeTable& rope, int64_t rank, float* cos, float* sin) const;

  // Positions of the table that a layer under this rule needs, for contexts of at most `keys` keys and texts of `length` tokens.
  static int64_t table_positions(const PositionRule& rule, int64_t keys, int64_t length);

 private:
  const Context& context_;
  TokenPositions of_;
};

}  // namespace bough
