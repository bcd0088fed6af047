// Where weights are kept in the form that a product wants.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "steps/linear.h"

namespace bough {

// Weights laid out anew, by the address of the original, once for prefill and once for decode. Not thread-safe.
class PackedWeights {
 public:
  // Bytes that may be kept for each of the two.
  explicit PackedWeights(size_t budget) : budget_(budget) {}

  // Prefill's form of `key`, in `bytes` bytes that `fill` writes when there is none yet. Beyond the budget the answer is one buffer
  // that the next such call overwrites. Nothing is kept when `fill` throws. Throws std::bad_alloc and what `fill` throws.
  template <typename Fill>
  std::byte* get(const void* key, size_t bytes, const Fill& fill) {
    if (std::byte* kept = keep(panels_, key, bytes, fill)) return kept;
    if (passing_bytes_ < bytes) {
      passing_ = allocate(bytes);
      passing_bytes_ = bytes;
    }
    fill(passing_.get());
    return passing_.get();
  }

  // Decode's form; null beyond the budget. What found no room finds none later, what was kept stays: a row's bits do not change from step
  // to step. Throws std::bad_alloc, since to go on without the memory would change them.
  template <typename Fill>
  std::byte* get_interleaved(const void* key, size_t bytes, const Fill& fill) {
    return keep(interleaved_, key, bytes, fill);
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  using Buffer = std::unique_ptr<std::byte, Free>;
  static Buffer allocate(size_t bytes) { return Buffer(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}))); }

  struct Kept {
    std::map<const void*, Buffer> buffers;
    size_t used = 0;
  };
  template <typename Fill>
  std::byte* keep(Kept& kept, const void* key, size_t bytes, const Fill& fill) {
    if (const auto found = kept.buffers.find(key); found != kept.buffers.end()) return found->second.get();
    if (kept.used + bytes > budget_) return nullptr;
    Buffer made = allocate(bytes);
    fill(made.get());
    kept.used += bytes;
    return (kept.buffers[key] = std::move(made)).get();
  }

  size_t budget_;
  Kept panels_;
  Kept interleaved_;
  Buffer passing_;
  size_t passing_bytes_ = 0;
};

}  // namespace bough
