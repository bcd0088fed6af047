// PagedAttention of a build without CUDA: create() says so, and nothing else can be reached.
#include "bough/paged_attention.h"

namespace bough {

struct PagedAttention::Impl {
  AttentionPlan plan;
};

namespace {

Status no_cuda() { return {Code::unsupported, "this build of Bough has no CUDA; configure it with BOUGH_CUDA=ON"}; }

}  // namespace

PagedAttention::PagedAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PagedAttention::PagedAttention(PagedAttention&&) noexcept = default;
PagedAttention& PagedAttention::operator=(PagedAttention&&) noexcept = default;
PagedAttention::~PagedAttention() = default;

Result<PagedAttention> PagedAttention::create(const AttentionPlan& /*plan*/, int /*layer*/, const PagedShape& /*shape*/,
                                              const PagedLimits& /*limits*/, KernelTier /*tier*/) {
  return no_cuda();
}

const AttentionPlan& PagedAttention::plan() const { return impl_->plan; }
size_t PagedAttention::workspace_bytes() const { return 0; }
size_t PagedAttention::state_bytes(int /*slots*/) const { return 0; }
int PagedAttention::stages() const { return 0; }
int PagedAttention::mean_keys() const { return 0; }
int PagedAttention::due_stage(int64_t /*counter*/, int64_t /*length*/) const { return 0; }
PagedSelection PagedAttention::selection(void* /*workspace*/) const { return {}; }

Status PagedAttention::write(const PagedBatch& /*batch*/, const PagedRows& /*k*/, const PagedRows& /*v*/, const PagedCache& /*cache*/,
                             void* /*stream*/) const {
  return no_cuda();
}

Status PagedAttention::summarise(const PagedBatch& /*batch*/, const PagedCache& /*cache*/, void* /*stream*/) const { return no_cuda(); }

Status PagedAttention::prune(const PagedBatch& /*batch*/, const PagedRows& /*q*/, const PagedCache& /*cache*/, void* /*workspace*/,
                             void* /*stream*/) const {
  return no_cuda();
}

Status PagedAttention::attend(const PagedBatch& /*batch*/, const PagedRows& /*q*/, const PagedCache& /*cache*/, const PagedRows& /*o*/,
                              float* /*lse*/, const float* /*sink_logits*/, void* /*workspace*/, void* /*stream*/) const {
  return no_cuda();
}

Status PagedAttention::decode(const PagedBatch& /*batch*/, const PagedRows& /*q*/, const PagedCache& /*cache*/, void* /*states*/,
                              int /*slots*/, const int32_t* /*slot*/, const int32_t* /*stage*/, int /*least_stage*/, const PagedRows& /*o*/,
                              float* /*lse*/, const float* /*sink_logits*/, void* /*workspace*/, void* /*stream*/) const {
  return no_cuda();
}

}  // namespace bough
