#include "bough/paged_attention.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <string>
#include <utility>

#include "attention/paged_shape.h"
#include "attention/refresh.h"
#include "base/check.h"
#include "cuda/paged_layout.h"

namespace bough {
namespace {

using cuda::Layout;
using cuda::Problem;

Status status_of(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const Code code = error == cudaErrorMemoryAllocation ? Code::out_of_memory : Code::internal;
  return {code, std::string("CUDA could not ") + what + ": " + cudaGetErrorString(error)};
}

struct FreeOnDevice {
  void operator()(float* p) const { cudaFree(p); }
};
using DeviceFloats = std::unique_ptr<float, FreeOnDevice>;

Result<DeviceFloats> upload(const std::vector<float>& x) {
  float* p = nullptr;
  BOUGH_RETURN_IF_ERROR(status_of(cudaMalloc(reinterpret_cast<void**>(&p), x.size() * sizeof(float)), "allocate a table of angles"));
  DeviceFloats owned(p);
  BOUGH_RETURN_IF_ERROR(status_of(cudaMemcpy(p, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice), "fill a table of angles"));
  return owned;
}

// magnitude * (cos, sin) of `count` positions, `step` apart.
std::vector<float> angle_table(const PagedRope& rope, int64_t count, int64_t step, double magnitude) {
  std::vector<float> table;
  table.reserve(static_cast<size_t>(count) * rope.frequencies.size() * 2);
  for (int64_t i = 0; i < count; ++i) {
    for (const double frequency : rope.frequencies) {
      const double angle = static_cast<double>(i * step) * frequency;
      table.push_back(static_cast<float>(magnitude * std::cos(angle)));
      table.push_back(static_cast<float>(magnitude * std::sin(angle)));
    }
  }
  return table;
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

Status check_plane(const char* name, const PagedPlane& plane) {
  if (plane.data == nullptr || !aligned(plane.data)) return {Code::invalid_argument, std::string(name) + " is null or not 16-byte aligned"};
  const int64_t strides[] = {plane.sequence_stride, plane.strides.page, plane.strides.token, plane.strides.head};
  for (const int64_t stride : strides) {
    if (stride % 8 != 0) return must_be(std::string(name) + "'s stride", stride, "a multiple of 8 elements");
  }
  for (const int64_t stride : {plane.strides.page, plane.strides.token, plane.strides.head, plane.scale_strides.page,
                               plane.scale_strides.token, plane.scale_strides.head}) {
    if (stride < 0 || stride > INT32_MAX) return must_be(std::string(name) + "'s stride", stride, "0 to 2147483647 elements");
  }
  return {};
}

bool quantised(const Problem& p) { return p.kv_type == ElementType::e4m3 || p.kv_type == ElementType::i8; }

Status check_summary(const PagedCache& cache, const Layout& layout) {
  const Problem& p = layout.problem;
  const int step = cache.summary_step;
  if (layout.mean_keys > 0) {
    if (cache.summary.data == nullptr || step != layout.mean_keys) {
      return must_be("cache.summary_step", step, std::to_string(layout.mean_keys) + ", since the plan's stages read means of as many keys");
    }
    if (cache.summary.scale != nullptr) return {Code::invalid_argument, "cache.summary has scales, but means of keys have none"};
    return check_plane("cache.summary", cache.summary);
  }
  if (cache.summary.data == nullptr && step == 0) return {};
  BOUGH_RETURN_IF_ERROR(check_plane("cache.summary", cache.summary));
  if (p.stages.count == 0 || p.tree.branches > 0) {
    return {Code::invalid_argument, "cache.summary is there, but the layer's plan has no stages, whose scans alone read it"};
  }
  const int page_tokens = 1 << p.cache.page_shift, chunk = p.stages.chunk[0];
  if (step < 4 || step > 64 || !std::has_single_bit(static_cast<unsigned>(step)))
    return must_be("cache.summary_step", step, "a power of two from 4 to 64");
  if (step > page_tokens) return must_be("cache.summary_step", step, "at most page_tokens, " + std::to_string(page_tokens));
  if (4 * step > chunk) {
    return must_be("cache.summary_step", step, "at most a quarter of the plan's first chunk, " + std::to_string(chunk) + " tokens");
  }
  if (!quantised(p)) return {};
  const bool by_token = cache.k.scale != nullptr && cache.k.scale_strides.token != 0;
  if (by_token && (cache.summary.scale == nullptr || cache.summary.scale_strides.token == 0)) {
    return {Code::invalid_argument, "cache.k has a scale for each token, so cache.summary must have scales with a token stride"};
  }
  if (!by_token && cache.summary.scale != nullptr) {
    return {Code::invalid_argument, "cache.summary has scales, but those of cache.k, which do not differ by token, hold for it"};
  }
  return {};
}

Status check_rows(const char* name, const PagedRows& rows) {
  if (rows.data == nullptr || !aligned(rows.data)) return {Code::invalid_argument, std::string(name) + " is null or not 16-byte aligned"};
  if (rows.row % 8 != 0) return must_be(std::string(name) + "'s row stride", rows.row, "a multiple of 8 elements");
  if (rows.head % 8 != 0) return must_be(std::string(name) + "'s head stride", rows.head, "a multiple of 8 elements");
  return {};
}

cuda::Plane plane_of(const PagedPlane& p) {
  const auto steps = [](const Strides& s) {
    return cuda::Steps{static_cast<int32_t>(s.page), static_cast<int32_t>(s.token), static_cast<int32_t>(s.head)};
  };
  return {p.data, p.sequence_stride, steps(p.strides), p.scale, p.scale_sequence_stride, steps(p.scale_strides)};
}

void put_cache(const PagedCache& cache, bool means, Problem& p) {
  p.cache.k = plane_of(cache.k);
  p.cache.v = plane_of(cache.v);
  p.cache.table = cache.page_table;
  p.cache.table_stride = cache.table_stride;
  if (cache.summary.data == nullptr) return;
  p.cache.means = means;
  p.cache.summary_shift = std::countr_zero(static_cast<unsigned>(cache.summary_step));
  PagedPlane summary = cache.summary;
  if (summary.scale == nullptr && !means) {
    summary.scale = cache.k.scale;
    summary.scale_sequence_stride = cache.k.scale_sequence_stride;
    summary.scale_strides = cache.k.scale_strides;
  }
  p.cache.summary = plane_of(summary);
  if (means) return;
  const int64_t bytes = reinterpret_cast<intptr_t>(summary.data) - reinterpret_cast<intptr_t>(cache.k.data);
  p.cache.summary_from = bytes / (quantised(p) ? 1 : 2);
  p.cache.summary_span = 4 * cache.summary_step;
}

void put_output(const PagedRows& o, float* lse, const float* sink_logits, Problem& p) {
  p.o = o.data;
  p.o_row = o.row;
  p.o_head = o.head;
  p.lse = lse;
  p.sink_logits = sink_logits;
}

}  // namespace

struct PagedAttention::Impl {
  Layout layout;
  cuda::Tier tier = cuda::Tier::portable;
  DeviceFloats high;
  DeviceFloats low;

  Status make_angles();
  Status check(const PagedBatch& batch, const PagedCache& cache) const;
  // The same of calls that read or write the summary too.
  Status check_all(const PagedBatch& batch, const PagedCache& cache) const {
    BOUGH_RETURN_IF_ERROR(check(batch, cache));
    return check_summary(cache, layout);
  }
  Status check(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, const void* workspace) const;
  Problem problem(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, const Layout::Workspace& w) const;
  int due_limit() const { return layout.problem.placement.due_limit; }
};

Status PagedAttention::Impl::make_angles() {
  const PagedRope& rope = layout.shape.rope;
  if (layout.shape.keys_rotated || rope.frequencies.empty()) return {};
  const int64_t positions = std::max(layout.limits.length, layout.shape.trained_context) + 2 * layout.layer.window + 64;
  BOUGH_ASSIGN_OR_RETURN(high, upload(angle_table(rope, positions / 64 + 1, 64, rope.magnitude)));
  BOUGH_ASSIGN_OR_RETURN(low, upload(angle_table(rope, 64, 1, 1)));
  cuda::Angles& a = layout.problem.angles;
  a = {high.get(), low.get(), static_cast<int32_t>(rope.frequencies.size()),
       rope.pairs == RopePairs::halves ? RopeLayout::halves : RopeLayout::interleaved, static_cast<float>(rope.magnitude)};
  return {};
}

Status PagedAttention::Impl::check(const PagedBatch& batch, const PagedCache& cache) const {
  const PagedLimits& l = layout.limits;
  if (batch.sequences < 1 || batch.sequences > l.sequences)
    return must_be("batch.sequences", batch.sequences, "1 to " + std::to_string(l.sequences));
  if (batch.rows < 0 || batch.rows > l.rows) return must_be("batch.rows", batch.rows, "0 to " + std::to_string(l.rows));
  if (batch.longest < 0 || batch.longest > l.length) return must_be("batch.longest", batch.longest, "0 to " + std::to_string(l.length));
  if (batch.lengths == nullptr) return {Code::invalid_argument, "batch.lengths is null"};
  BOUGH_RETURN_IF_ERROR(check_plane("cache.k", cache.k));
  return check_plane("cache.v", cache.v);
}

Status PagedAttention::Impl::check(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, const void* workspace) const {
  BOUGH_RETURN_IF_ERROR(check(batch, cache));
  if (workspace == nullptr || reinterpret_cast<uintptr_t>(workspace) % 256 != 0) {
    return {Code::invalid_argument, "workspace is null or not 256-byte aligned"};
  }
  return check_rows("q", q);
}

Problem PagedAttention::Impl::problem(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache,
                                      const Layout::Workspace& w) const {
  Problem p = layout.problem;
  p.q = q.data;
  p.q_row = q.row;
  p.q_head = q.head;
  put_cache(cache, layout.mean_keys > 0, p);
  p.blocks = w.blocks;
  p.nb = static_cast<int32_t>(layout.blocks(batch.rows, batch.sequences));
  p.placement.lengths = batch.lengths;
  p.lists = w.lists;
  p.turned = w.turned;
  p.scores = w.scores;
  p.tree.halves = w.halves;
  p.tree.live = w.live;
  for (int i = 0; i < p.stages.count; ++i) p.candidates[i] = layout.candidates(i, batch.longest);
  return p;
}

PagedAttention::PagedAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PagedAttention::PagedAttention(PagedAttention&&) noexcept = default;
PagedAttention& PagedAttention::operator=(PagedAttention&&) noexcept = default;
PagedAttention::~PagedAttention() = default;

Result<PagedAttention> PagedAttention::create(const AttentionPlan& plan, int layer, const PagedShape& shape, const PagedLimits& limits,
                                              KernelTier tier) try {
  auto impl = std::make_unique<Impl>();
  BOUGH_ASSIGN_OR_RETURN(impl->layout, cuda::make_layout(plan, layer, shape, limits));
  int device = 0, major = 0;
  BOUGH_RETURN_IF_ERROR(status_of(cudaGetDevice(&device), "find a device"));
  BOUGH_RETURN_IF_ERROR(status_of(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "ask the device what it is"));
  if (major < 8)
    return Status(Code::unsupported, "the device's compute capability is " + std::to_string(major) + ".x, it must be 8.0 or more");
  if (tier == KernelTier::best && major == 9 && cuda::has_sm90()) impl->tier = cuda::Tier::sm90;
  BOUGH_RETURN_IF_ERROR(impl->make_angles());
  return PagedAttention(std::move(impl));
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory for the tables of a PagedAttention");
}

const AttentionPlan& PagedAttention::plan() const { return impl_->layout.plan; }
size_t PagedAttention::workspace_bytes() const { return impl_->layout.workspace(nullptr).bytes; }
size_t PagedAttention::state_bytes(int slots) const { return impl_->layout.states(nullptr, slots).bytes; }
int PagedAttention::stages() const { return impl_->due_limit(); }
int PagedAttention::mean_keys() const { return impl_->layout.mean_keys; }

int PagedAttention::due_stage(int64_t counter, int64_t length) const {
  const std::vector<int>& refresh = impl_->layout.layer.refresh;
  if (refresh.empty()) return 0;
  const int due = first_refreshed_stage(refresh, counter);
  const bool first_search =
      due < stages() && sees_everything(impl_->layout.layer, impl_->layout.plan.dense_below,
                                        length - refresh.back());  // nothing was saved at the step that was due before
  return first_search ? 0 : due;
}

Status PagedAttention::write(const PagedBatch& batch, const PagedRows& k, const PagedRows& v, const PagedCache& cache, void* stream) const {
  BOUGH_RETURN_IF_ERROR(impl_->check_all(batch, cache));
  BOUGH_RETURN_IF_ERROR(check_rows("k", k));
  BOUGH_RETURN_IF_ERROR(check_rows("v", v));
  if (batch.query_start == nullptr && batch.rows != batch.sequences) {
    return must_be("batch.rows", batch.rows, "one a sequence, " + std::to_string(batch.sequences) + ", where batch.query_start is null");
  }
  Problem p = impl_->layout.problem;
  put_cache(cache, impl_->layout.mean_keys > 0, p);
  const cuda::WriteArgs args{{k.data, k.row, k.head}, {v.data, v.row, v.head}, batch.query_start,
                             batch.lengths,           batch.sequences,         static_cast<int32_t>(batch.rows)};
  return status_of(cuda::kv_write(p, args, static_cast<cudaStream_t>(stream)), "write keys and values");
}

Status PagedAttention::summarise(const PagedBatch& batch, const PagedCache& cache, void* stream) const {
  const Layout& layout = impl_->layout;
  if (layout.mean_keys == 0) return {Code::invalid_argument, "the plan's stages read no means of keys: there is nothing to summarise"};
  const int64_t most = batch.query_start == nullptr ? batch.longest : std::min(batch.rows, batch.longest);
  PagedBatch rows = batch;
  rows.rows = 0;  // of q there are none
  BOUGH_RETURN_IF_ERROR(impl_->check(rows, {cache.k, cache.k}));
  BOUGH_RETURN_IF_ERROR(check_summary(cache, layout));
  if (batch.rows < 0) return must_be("batch.rows", batch.rows, "0 or more");
  Problem p = layout.problem;
  put_cache(cache, true, p);
  const cuda::WriteArgs args{{}, {}, batch.query_start, batch.lengths, batch.sequences, static_cast<int32_t>(most)};
  return status_of(cuda::summarise(p, args, static_cast<cudaStream_t>(stream)), "summarise keys");
}

Status PagedAttention::prune(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, void* workspace, void* stream) const {
  BOUGH_RETURN_IF_ERROR(impl_->check(batch, q, cache, workspace));
  BOUGH_RETURN_IF_ERROR(check_summary(cache, impl_->layout));
  if (batch.query_start == nullptr) return {Code::invalid_argument, "batch.query_start is null"};
  const Layout::Workspace w = impl_->layout.workspace(workspace);
  const Problem p = impl_->problem(batch, q, cache, w);
  auto* queue = static_cast<cudaStream_t>(stream);
  BOUGH_RETURN_IF_ERROR(
      status_of(place(p, {batch.query_start, batch.sequences, static_cast<int32_t>(impl_->layout.tail), w.blocks, w.room}, queue),
                "place query blocks"));
  if (p.tree.branches > 0) return status_of(tree(p, w.images, queue), "search the tree");
  for (int i = 0; i < p.stages.count; ++i) {
    BOUGH_RETURN_IF_ERROR(status_of(scan_row(p, i, i == 0, queue), "scan single rows"));
    BOUGH_RETURN_IF_ERROR(status_of(scan_rows(p, i, w.images, impl_->tier, queue), "scan query blocks"));
    BOUGH_RETURN_IF_ERROR(status_of(select(p, i, queue), "select chunks"));
  }
  return {};
}

Status PagedAttention::attend(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, const PagedRows& o, float* lse,
                              const float* sink_logits, void* workspace, void* stream) const {
  BOUGH_RETURN_IF_ERROR(impl_->check(batch, q, cache, workspace));
  BOUGH_RETURN_IF_ERROR(check_rows("o", o));
  Problem p = impl_->problem(batch, q, cache, impl_->layout.workspace(workspace));
  put_output(o, lse, sink_logits, p);
  return status_of(cuda::attend(p, impl_->tier, static_cast<cudaStream_t>(stream)), "attend");
}

PagedSelection PagedAttention::selection(void* workspace) const {
  const Layout& layout = impl_->layout;
  const Layout::Workspace w = layout.workspace(workspace);
  const int last = layout.problem.stages.count;
  PagedSelection s;
  s.blocks = reinterpret_cast<const int32_t*>(w.blocks);
  s.counts = reinterpret_cast<const int32_t*>(w.lists.meta[last]);
  s.starts = w.lists.start[last];
  s.nb = w.room;
  s.list_heads = layout.problem.list_heads;
  s.capacity = w.lists.capacity[last];
  s.chunk = last > 0 ? layout.problem.stages.chunk[last - 1] : layout.layer.last_chunk();
  return s;
}

Status PagedAttention::decode(const PagedBatch& batch, const PagedRows& q, const PagedCache& cache, void* states, int slots,
                              const int32_t* slot, const int32_t* stage, int least_stage, const PagedRows& o, float* lse,
                              const float* sink_logits, void* workspace, void* stream) const {
  BOUGH_RETURN_IF_ERROR(impl_->check(batch, q, cache, workspace));
  BOUGH_RETURN_IF_ERROR(check_summary(cache, impl_->layout));
  BOUGH_RETURN_IF_ERROR(check_rows("o", o));
  if (batch.rows != batch.sequences) return must_be("batch.rows", batch.rows, "one a sequence, " + std::to_string(batch.sequences));
  if (states == nullptr || slot == nullptr || stage == nullptr) return {Code::invalid_argument, "states, slot and stage must not be null"};
  if (least_stage < 0) return must_be("least_stage", least_stage, "0 or more");
  const Layout::Workspace w = impl_->layout.workspace(workspace);
  const Layout::States s = impl_->layout.states(states, slots);
  Problem p = impl_->problem(batch, q, cache, w);
  p.nb = batch.sequences;
  p.owner = slot;
  p.lists = s.lists;
  put_output(o, lse, sink_logits, p);
  cuda::WorkingSets sets = s.sets;
  sets.part_o = w.sets.part_o;
  sets.part_ml = w.sets.part_ml;
  sets.done = w.sets.done;
  sets.splits = w.sets.splits;
  sets.fills = least_stage < impl_->due_limit();
  p.placement.stage = stage;
  p.blocks = nullptr;
  auto* queue = static_cast<cudaStream_t>(stream);
  if (impl_->layout.set_capacity == 0) {
    BOUGH_RETURN_IF_ERROR(status_of(place(p, {nullptr, batch.sequences, 0, w.blocks, p.nb}, queue), "place rows"));
    p.blocks = w.blocks;
    return status_of(cuda::attend(p, impl_->tier, queue), "attend");
  }
  const bool searches_tree = p.tree.branches > 0;
  if (searches_tree && sets.fills) BOUGH_RETURN_IF_ERROR(status_of(tree(p, w.images, queue), "search the tree"));
  for (int i = least_stage; i < p.stages.count && !searches_tree; ++i) {
    BOUGH_RETURN_IF_ERROR(status_of(scan_row(p, i, i == least_stage, queue), "scan rows"));
    BOUGH_RETURN_IF_ERROR(status_of(select(p, i, queue), "select chunks"));
  }
  return status_of(attend_cached(p, sets, queue), "attend to working sets");
}

}  // namespace bough
