#include "cpu/scratch.h"

#include <memory>
#include <new>

namespace bough::cpu {
namespace {

struct Free {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};
struct Buffer {
  std::unique_ptr<std::byte, Free> data;
  size_t size = 0;
};
thread_local Buffer buffer;

}  // namespace

Scratch::Scratch(size_t bytes_per_thread, size_t shared_bytes)
    : shared_size_((shared_bytes + 63) / 64 * 64), stride_((bytes_per_thread + 63) / 64 * 64) {
  const size_t wanted = shared_size_ + stride_ * static_cast<size_t>(omp_get_max_threads());
  if (buffer.size < wanted) {
    buffer = {};
    buffer.data.reset(static_cast<std::byte*>(::operator new (wanted, std::align_val_t{64})));
    buffer.size = wanted;
  }
  shared_ = buffer.data.get();
}

}  // namespace bough::cpu
