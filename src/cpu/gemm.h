// Prefill's matrix product: oneDNN's, one-threaded inside our own parallel loop over fixed tiles, so that a row's result does not
// depend on how many rows come with it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "bough/types.h"
#include "steps/linear.h"

namespace bough {

// Dequantised, reordered weights by the address of the original. Not thread-safe.
class PackedWeights {
 public:
  explicit PackedWeights(size_t budget) : budget_(budget) {}

  // Where the packed form of `key` is or may be put; `fresh` tells that it must be filled. Beyond the budget the answer is one buffer
  // that the next such call overwrites. Throws std::bad_alloc.
  std::byte* place(const void* key, size_t bytes, bool* fresh);

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
