// Prefill's matrix product: oneDNN's, one-threaded inside our own parallel loop over fixed tiles, so that a row's result does not
// depend on how many rows come with it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "bough/types.h"
#include "steps/linear.h"

namespace bough {

// Dequantised, reordered weights by the address of the original. Not thread-safe.
class PackedWeights {
 public:
  explicit PackedWeights(size_t budget) : budget_(budget) {}

  // The packed form of `key`, in `bytes` bytes that `fill` writes when there is none yet. Beyond the budget the answer is one buffer
  // that the next such call overwrites. Nothing is kept when `fill` throws. Throws std::bad_alloc and what `fill` throws.
  template <typename Fill>
  std::byte* get(const void* key, size_t bytes, const Fill& fill) {
    if (const auto found = kept_.find(key); found != kept_.end()) return found->second.get();
    if (used_ + bytes > budget_) {
      if (passing_bytes_ < bytes) {
        passing_ = allocate(bytes);
        passing_bytes_ = bytes;
      }
      fill(passing_.get());
      return passing_.get();
    }
    Buffer made = allocate(bytes);
    fill(made.get());
    used_ += bytes;
    return (kept_[key] = std::move(made)).get();
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  using Buffer = std::unique_ptr<std::byte, Free>;
  static Buffer allocate(size_t bytes) { return Buffer(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}))); }

  size_t budget_;
  size_t used_ = 0;
  std::map<const void*, Buffer> kept_;
  Buffer passing_;
  size_t passing_bytes_ = 0;
};

namespace cpu {

// y (+)= x W^T. Throws std::bad_alloc or dnnl::error.
void gemm(const LinearArgs& args);

}  // namespace cpu
}  // namespace bough
