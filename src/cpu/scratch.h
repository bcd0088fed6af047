// Working memory of parallel regions, taken before the region starts so that no thread allocates inside it.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>

namespace bough::cpu {

// At least `bytes_per_thread` for each of omp_get_max_threads() threads and `shared_bytes` for all of them, aligned to 64, kept by the
// calling thread for the next call; a later call may move it. Throws std::bad_alloc.
class Scratch {
 public:
  explicit Scratch(size_t bytes_per_thread, size_t shared_bytes = 0);

  // This thread's part. Called inside the parallel region.
  std::byte* mine() const { return shared_ + shared_size_ + static_cast<size_t>(omp_get_thread_num()) * stride_; }
  std::byte* shared() const { return shared_; }

 private:
  std::byte* shared_ = nullptr;
  size_t shared_size_ = 0;
  size_t stride_ = 0;
};

// Cuts a part into arrays, each aligned to 64 bytes. With base = nullptr it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  T* take(int64_t count) {
    auto* p = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return base_ == nullptr ? nullptr : p;
  }
  std::byte* bytes(size_t count) { return take<std::byte>(static_cast<int64_t>(count)); }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

}  // namespace bough::cpu
