// How a plan and a shape become the CUDA steps' structs, and how a caller's memory is divided.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bough/paged_attention.h"
#include "cuda/steps.h"

namespace bough::cuda {

// Hands out parts of a caller's memory, each 256-byte aligned; from null it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<std::byte*>(base)) {}

  template <typename T>
  T* take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// One layer's plan, resolved, with what its memory is measured by.
struct Layout {
  LayerPlan layer;
  AttentionPlan plan;
  PagedShape shape;
  PagedLimits limits;
  Problem problem;  // all but pointers and what a call brings
  int64_t tail = 0;
  int32_t set_capacity = 0;  // keys of a working set; 0: decode attends to pages
  int32_t mean_keys = 0;     // keys of each mean that stages read; 0: none
  int32_t added = 0;         // tokens that leave the window between runs of the first stage

  bool searches() const { return problem.stages.count > 0; }
  // Upper bound of query blocks.
  int64_t blocks(int64_t rows, int64_t sequences) const;
  // Candidates of a stage at most, for texts of at most `length` tokens.
  int32_t candidates(int stage, int64_t length) const;

  struct Workspace {
    BlockInfo* blocks = nullptr;
    int32_t room = 0;  // of blocks
    Lists lists;
    void* turned = nullptr;
    uint32_t* scores = nullptr;
    void* images = nullptr;
    Branch* halves = nullptr;
    int32_t* live = nullptr;
    WorkingSets sets;  // the parts that calls share
    size_t bytes = 0;
  };
  Workspace workspace(void* memory) const;

  struct States {
    Lists lists;
    WorkingSets sets;  // the parts that slots own
    size_t bytes = 0;
  };
  States states(void* memory, int64_t slots) const;

 private:
  void carve_lists(Carver& carver, int64_t owners, Lists& lists) const;
};

// Errors: invalid_argument, unsupported.
Result<Layout> make_layout(const AttentionPlan& plan, int layer, const PagedShape& shape, const PagedLimits& limits);

}  // namespace bough::cuda
