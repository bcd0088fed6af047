// PagedAttention through the C ABI.
#include <string>
#include <utility>

#include "base/check.h"
#include "c_attention/call.h"

#ifndef BOUGH_HAS_CUDA
#define BOUGH_HAS_CUDA 0
#endif

struct bough_paged {
  bough::PagedAttention attention;
  std::string plan;
};

namespace bough::c_attention {

static_assert(static_cast<int>(Code::internal) == BOUGH_ATTENTION_INTERNAL);

Status check_given(const void* pointer, const char* name) {
  return pointer != nullptr ? Status() : Status(Code::invalid_argument, std::string(name) + " is NULL");
}

Result<PagedShape> shape_of(const bough_attention_shape& from) {
  for (const auto& [name, value, most] :
       {std::tuple{"q_type", from.q_type, 3}, {"kv_type", from.kv_type, 3}, {"rope_pairs", from.rope_pairs, 1}}) {
    if (value >= 0 && value <= most) continue;
    return Status(Code::invalid_argument, std::string(name) + " is " + std::to_string(value) + ", it must be 0 to " + std::to_string(most));
  }
  if (from.frequency_count < 0 || from.frequency_count > 128) {
    return Status(Code::invalid_argument, "frequency_count is " + std::to_string(from.frequency_count) + ", it must be 0 to 128");
  }
  PagedShape shape;
  shape.heads = from.heads;
  shape.kv_heads = from.kv_heads;
  shape.head_dim = from.head_dim;
  shape.q_type = static_cast<ElementType>(from.q_type);
  shape.kv_type = static_cast<ElementType>(from.kv_type);
  shape.page_tokens = from.page_tokens;
  shape.scale = from.scale;
  shape.softcap = from.softcap;
  shape.sliding_window = from.sliding_window;
  shape.keys_rotated = from.keys_rotated != 0;
  shape.rope.pairs = static_cast<RopePairs>(from.rope_pairs);
  shape.rope.magnitude = from.rope_magnitude;
  shape.trained_context = from.trained_context;
  if (from.frequency_count > 0) {
    BOUGH_RETURN_IF_ERROR(check_given(from.frequencies, "frequencies"));
    shape.rope.frequencies.assign(from.frequencies, from.frequencies + from.frequency_count);
  }
  return shape;
}

namespace {

PagedPlane plane_of(const bough_paged_plane& p) {
  return {p.data,  p.sequence_stride,       {p.page_stride, p.token_stride, p.head_stride},
          p.scale, p.scale_sequence_stride, {p.scale_page_stride, p.scale_token_stride, p.scale_head_stride}};
}

PagedCache cache_of(const bough_paged_cache& c) {
  const auto step = static_cast<int>(std::clamp<int64_t>(c.summary_step, INT32_MIN, INT32_MAX));
  return {plane_of(c.k), plane_of(c.v), c.page_table, c.table_stride, plane_of(c.summary), step};
}

PagedBatch batch_of(const bough_paged_batch& b) {
  const auto sequences = static_cast<int>(std::clamp<int64_t>(b.sequences, 0, INT32_MAX));
  return {sequences, b.rows, b.query_start, b.lengths, b.longest};
}

PagedRows rows_of(const bough_paged_rows& r) { return {r.data, r.row, r.head}; }

// `name`: of the rows.
Status check_call(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* rows, const char* name,
                  const bough_paged_cache* cache) {
  BOUGH_RETURN_IF_ERROR(check_given(paged, "paged"));
  BOUGH_RETURN_IF_ERROR(check_given(batch, "batch"));
  BOUGH_RETURN_IF_ERROR(check_given(rows, name));
  return check_given(cache, "cache");
}

Status create(const char* plan, int32_t layer, const bough_attention_shape& shape, const bough_paged_limits& limits, bough_paged** out) {
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan parsed, parse_plan(plan));
  BOUGH_ASSIGN_OR_RETURN(const PagedShape paged_shape, shape_of(shape));
  const PagedLimits most{limits.rows, limits.sequences, limits.length};
  const KernelTier tier = limits.portable != 0 ? KernelTier::portable : KernelTier::best;
  BOUGH_ASSIGN_OR_RETURN(PagedAttention attention, PagedAttention::create(parsed, layer, paged_shape, most, tier));
  std::string json = plan_json(attention.plan());
  *out = new bough_paged{std::move(attention), std::move(json)};
  return {};
}

}  // namespace
}  // namespace bough::c_attention

using bough::Status;
using bough::c_attention::batch_of;
using bough::c_attention::cache_of;
using bough::c_attention::check_call;
using bough::c_attention::check_given;
using bough::c_attention::create;
using bough::c_attention::guarded;
using bough::c_attention::rows_of;

uint32_t bough_attention_abi_version(void) { return BOUGH_ATTENTION_ABI_VERSION; }
int32_t bough_attention_has_cuda(void) { return BOUGH_HAS_CUDA; }
int64_t bough_attention_break_even_tokens(int32_t major, int32_t minor) { return bough::break_even_tokens(major, minor); }

int32_t bough_paged_create(const char* plan, int32_t layer, const bough_attention_shape* shape, const bough_paged_limits* limits,
                           bough_paged** out, char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(plan, "plan"));
    BOUGH_RETURN_IF_ERROR(check_given(shape, "shape"));
    BOUGH_RETURN_IF_ERROR(check_given(limits, "limits"));
    BOUGH_RETURN_IF_ERROR(check_given(out, "out"));
    return create(plan, layer, *shape, *limits, out);
  });
}

void bough_paged_destroy(bough_paged* paged) { delete paged; }
const char* bough_paged_plan(const bough_paged* paged) { return paged->plan.c_str(); }
int64_t bough_paged_workspace_bytes(const bough_paged* paged) { return static_cast<int64_t>(paged->attention.workspace_bytes()); }
int64_t bough_paged_state_bytes(const bough_paged* paged, int32_t slots) {
  return static_cast<int64_t>(paged->attention.state_bytes(slots));
}
int32_t bough_paged_due_stage(const bough_paged* paged, int64_t counter, int64_t length) {
  return paged->attention.due_stage(counter, length);
}
int32_t bough_paged_stages(const bough_paged* paged) { return paged->attention.stages(); }
int32_t bough_paged_mean_keys(const bough_paged* paged) { return paged->attention.mean_keys(); }

int32_t bough_paged_write(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* k, const bough_paged_rows* v,
                          const bough_paged_cache* cache, void* stream, char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_call(paged, batch, k, "k", cache));
    BOUGH_RETURN_IF_ERROR(check_given(v, "v"));
    return paged->attention.write(batch_of(*batch), rows_of(*k), rows_of(*v), cache_of(*cache), stream);
  });
}

int32_t bough_paged_summarise(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_cache* cache, void* stream,
                              char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(paged, "paged"));
    BOUGH_RETURN_IF_ERROR(check_given(batch, "batch"));
    BOUGH_RETURN_IF_ERROR(check_given(cache, "cache"));
    return paged->attention.summarise(batch_of(*batch), cache_of(*cache), stream);
  });
}

int32_t bough_paged_prune(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                          const bough_paged_cache* cache, void* workspace, void* stream, char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_call(paged, batch, q, "q", cache));
    return paged->attention.prune(batch_of(*batch), rows_of(*q), cache_of(*cache), workspace, stream);
  });
}

int32_t bough_paged_attend(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                           const bough_paged_cache* cache, const bough_paged_rows* o, float* lse, const float* sink_logits, void* workspace,
                           void* stream, char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_call(paged, batch, q, "q", cache));
    BOUGH_RETURN_IF_ERROR(check_given(o, "o"));
    return paged->attention.attend(batch_of(*batch), rows_of(*q), cache_of(*cache), rows_of(*o), lse, sink_logits, workspace, stream);
  });
}

void bough_paged_selected(const bough_paged* paged, void* workspace, bough_paged_selection* out) {
  const bough::PagedSelection s = paged->attention.selection(workspace);
  *out = {s.blocks, s.counts, s.starts, s.nb, s.list_heads, s.capacity, s.chunk};
}

int32_t bough_paged_decode(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                           const bough_paged_cache* cache, const bough_paged_states* states, const bough_paged_rows* o, float* lse,
                           const float* sink_logits, void* workspace, void* stream, char* message, size_t room) {
  return guarded(message, room, [&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_call(paged, batch, q, "q", cache));
    BOUGH_RETURN_IF_ERROR(check_given(states, "states"));
    BOUGH_RETURN_IF_ERROR(check_given(o, "o"));
    return paged->attention.decode(batch_of(*batch), rows_of(*q), cache_of(*cache), states->states, states->slots, states->slot,
                                   states->stage, states->least_stage, rows_of(*o), lse, sink_logits, workspace, stream);
  });
}
