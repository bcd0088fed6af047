// bough_cpu_attention: a caller's arrays go to pages of the engine's kind, then the Pruner and attend run on them as in the engine.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention/paged_shape.h"
#include "attention/prune.h"
#include "base/check.h"
#include "c_attention/call.h"
#include "kv/page_pool.h"
#include "steps/kv_row.h"

namespace bough::c_attention {
namespace {

constexpr int64_t kBlocksAtOnce = 512;  // bounds the memory that scores take; blocks do not depend on one another

Status check_call(const bough_cpu_call& c, const PagedShape& s) {
  constexpr int64_t most = INT32_MAX / 2;
  if (c.sequences < 1 || c.sequences > most) return must_be("sequences", c.sequences, "1 to 2^30");
  if (c.tokens < 1 || c.tokens > most) return must_be("tokens", c.tokens, "1 to 2^30");
  if (c.rows < 1 || c.rows > c.tokens) return must_be("rows", c.rows, "1 to the number of tokens, " + std::to_string(c.tokens));
  if (c.rows * c.sequences > most) return must_be("rows of all sequences", c.rows * c.sequences, "at most 2^30");
  for (int64_t b = 0; c.lengths != nullptr && b < c.sequences; ++b) {
    if (c.lengths[b] < c.rows || c.lengths[b] > c.tokens) {
      return must_be("lengths[" + std::to_string(b) + "]", c.lengths[b], std::to_string(c.rows) + " to " + std::to_string(c.tokens));
    }
  }
  BOUGH_RETURN_IF_ERROR(check_rotated_length("tokens", c.tokens, s));
  BOUGH_RETURN_IF_ERROR(check_given(c.q.data, "q"));
  BOUGH_RETURN_IF_ERROR(check_given(c.k.data, "k"));
  BOUGH_RETURN_IF_ERROR(check_given(c.v.data, "v"));
  return check_given(c.o.data, "o");
}

// One layer, whichever of the plan's it is, so that pages hold no other.
AttentionSetup setup_of(const AttentionPlan& plan, int layer, const PagedShape& s) {
  const float scale = s.scale > 0 ? s.scale : 1.0F / std::sqrt(static_cast<float>(s.head_dim));
  AttentionSetup setup(plan, {DType::f32, 1, s.kv_heads, s.head_dim}, {s.heads, s.kv_heads, s.head_dim, scale, s.softcap},
                       s.trained_context, pick_attention_bodies(DType::f32), {{s.sliding_window, 0}});
  setup.layers[0] = plan.layer(layer);
  return setup;
}

// Keys that come turned stay as they are: nothing turns.
RopeTable rope_of(const AttentionSetup& setup, const PagedShape& s, int64_t longest) {
  RopeParams params;
  params.layout = s.rope.pairs == RopePairs::halves ? RopeLayout::halves : RopeLayout::interleaved;
  if (!s.keys_rotated) {
    params.dims = static_cast<int>(s.rope.frequencies.size()) * 2;
    params.frequencies = s.rope.frequencies;
    params.magnitude = s.rope.magnitude;
  }
  RopeTable table(std::move(params));
  table.reserve(setup.rope_positions(0, longest));
  return table;
}

class CpuAttention {
 public:
  CpuAttention(const AttentionSetup& setup, const PagedShape& shape, const bough_cpu_call& call)
      : setup_(setup), call_(call), rope_(rope_of(setup, shape, call.tokens)), pool_(setup.kv) {}

  Status run() {
    BOUGH_RETURN_IF_ERROR(store());
    place_blocks();
    gather_q();
    o_.resize(q_.size());
    lse_.resize(static_cast<size_t>(call_.sequences * call_.rows * setup_.heads.heads));
    const std::vector<QueryBlock> all = std::move(batch_.blocks);
    for (size_t first = 0; first < all.size(); first += kBlocksAtOnce) {
      const size_t last = std::min(all.size(), first + kBlocksAtOnce);
      batch_.blocks.assign(all.begin() + static_cast<ptrdiff_t>(first), all.begin() + static_cast<ptrdiff_t>(last));
      attend();
    }
    scatter();
    return {};
  }

 private:
  int64_t length(int64_t b) const { return call_.lengths == nullptr ? call_.tokens : call_.lengths[b]; }

  Status store() {
    const KvShape& kv = setup_.kv;
    for (int64_t b = 0; b < call_.sequences; ++b) {
      lists_.push_back(std::make_unique<PageList>(&pool_));
      BOUGH_RETURN_IF_ERROR(lists_.back()->extend(length(b)));
      PageTable pages = lists_.back()->table();
      batch_.sequences.push_back(pages);
#pragma omp parallel for collapse(2) schedule(static)
      for (int head = 0; head < kv.kv_heads; ++head) {
        for (int64_t t = 0; t < pages.length; ++t) {
          store_token(kv, pages, kv.k_offset(0, head), t, call_.k.data + b * call_.k.batch + head * call_.k.head + t * call_.k.token);
          store_token(kv, pages, kv.v_offset(0, head), t, call_.v.data + b * call_.v.batch + head * call_.v.head + t * call_.v.token);
        }
      }
    }
    return {};
  }

  // Intersections of [B i, B (i + 1)) with the rows before the tail, then the tail's rows alone. Without a choice there is no tail.
  void place_blocks() {
    const bool chooses = !setup_.is_sliding(0) && setup_.layer(0).mode != Mode::dense;
    const int64_t block = setup_.plan.query_block();
    for (int64_t b = 0; b < call_.sequences; ++b) {
      const int64_t begin = length(b) - call_.rows, tail = chooses ? length(b) - setup_.plan.tail : length(b);
      for (int64_t p = begin; p < length(b);) {
        const int64_t next = p >= tail ? p + 1 : std::min({length(b), (p / block + 1) * block, tail});
        batch_.blocks.push_back(
            {static_cast<int32_t>(b), static_cast<int32_t>(b * call_.rows + p - begin), static_cast<int32_t>(next - p), p});
        p = next;
      }
    }
    batch_.ids.resize(static_cast<size_t>(call_.sequences * call_.rows));
  }

  // Calls visit(the caller's offset, ours) for every row and head.
  template <typename Visit>
  void for_each_row(const bough_cpu_array& array, const Visit& visit) const {
    const int64_t heads = setup_.heads.heads;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < call_.sequences * call_.rows; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        visit(row / call_.rows * array.batch + head * array.head + row % call_.rows * array.token, row * heads + head);
      }
    }
  }

  void gather_q() {
    const int64_t d = setup_.heads.head_dim;
    q_.resize(static_cast<size_t>(call_.sequences * call_.rows * setup_.heads.heads * d));
    for_each_row(call_.q, [&](int64_t theirs, int64_t ours) { std::copy_n(call_.q.data + theirs, d, q_.data() + ours * d); });
  }

  void attend() {
    Pruner pruner(&setup_);
    AttendArgs args;
    args.batch = &batch_;
    args.kv = setup_.kv;
    args.heads = setup_.heads;
    args.q = q_.data();
    args.lists = pruner.run(batch_, 0, q_.data(), rope_, {});
    args.rope = &rope_;
    args.window = setup_.attention_of(0).sliding_window;
    args.positions = setup_.positions(0);
    args.o = o_.data();
    args.lse = lse_.data();
    setup_.bodies->attend(args);
  }

  void scatter() {
    const int64_t d = setup_.heads.head_dim, heads = setup_.heads.heads;
    for_each_row(call_.o, [&](int64_t theirs, int64_t ours) {
      float lse = lse_[static_cast<size_t>(ours)], share = 1;
      if (call_.sink_logits != nullptr) {
        const float sink = call_.sink_logits[ours % heads], top = std::max(sink, lse);
        const float all = std::isinf(top) ? top : top + std::log(std::exp(sink - top) + std::exp(lse - top));
        share = std::isinf(all) ? 1.0F : std::exp(lse - all);
        lse = all;
      }
      for (int64_t i = 0; i < d; ++i) call_.o.data[theirs + i] = share * o_[static_cast<size_t>(ours * d + i)];
      if (call_.lse != nullptr) call_.lse[ours] = lse;
    });
  }

  const AttentionSetup& setup_;
  const bough_cpu_call& call_;
  RopeTable rope_;
  PagePool pool_;
  std::vector<std::unique_ptr<PageList>> lists_;
  Batch batch_;
  std::vector<float> q_;    // [t, hq, d]
  std::vector<float> o_;    // as q
  std::vector<float> lse_;  // [t, hq]
};

Status run(const char* plan, int32_t layer, const bough_attention_shape& shape, const bough_cpu_call& call) {
  BOUGH_ASSIGN_OR_RETURN(const PagedShape s, shape_of(shape));
  BOUGH_RETURN_IF_ERROR(check_paged_shape(s));
  BOUGH_RETURN_IF_ERROR(check_call(call, s));
  if (layer < 0) return must_be("layer", layer, "0 or more");
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan parsed, parse_plan(plan));
  BOUGH_ASSIGN_OR_RETURN(const FittedPlan fitted, fit_plan(parsed, s.trained_context, /*explicit_plan=*/false));
  const AttentionSetup setup = setup_of(fitted.plan, layer, s);
  return CpuAttention(setup, s, call).run();
}

}  // namespace
}  // namespace bough::c_attention

int32_t bough_cpu_attention(const char* plan, int32_t layer, const bough_attention_shape* shape, const bough_cpu_call* call, char* message,
                            size_t room) {
  using bough::c_attention::check_given;
  return bough::c_attention::guarded(message, room, [&]() -> bough::Status {
    BOUGH_RETURN_IF_ERROR(check_given(plan, "plan"));
    BOUGH_RETURN_IF_ERROR(check_given(shape, "shape"));
    BOUGH_RETURN_IF_ERROR(check_given(call, "call"));
    return bough::c_attention::run(plan, layer, *shape, *call);
  });
}
