// Device memory between guard bands, streams and graphs. What CUDA says becomes an exception.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace bough::test {

// Every byte that nobody has written: NaN in f16, bf16, e4m3 and f32.
inline constexpr std::byte kPoison{0xff};

void check(cudaError_t error, const char* what);

// INVARIANT: the bytes before and behind the buffer stay poison; intact() says whether they did. BOUGH_CUDA_GUARD=0 in the environment:
// no bands, so that a memory checker sees the buffer's own end.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes, std::byte fill = kPoison);
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void fill(std::byte value) const;
  void upload(std::span<const std::byte> from) const;
  template <typename T>
  void upload(const std::vector<T>& from) const {
    upload(std::as_bytes(std::span(from)));
  }
  std::vector<std::byte> download() const;
  bool intact() const;

 private:
  void* base_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  size_t guard_ = 0;
};

// `count` elements from device memory.
void download(const void* from, size_t bytes, void* to);
template <typename T>
std::vector<T> download(const T* from, size_t count) {
  std::vector<T> to(count);
  download(from, count * sizeof(T), to.data());
  return to;
}

class Stream {
 public:
  Stream();
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  ~Stream();

  cudaStream_t get() const { return stream_; }
  void wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// What `work` queues on the stream, to be launched again and again.
class Graph {
 public:
  Graph(const Stream& stream, const std::function<void()>& work);
  Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)), runnable_(std::exchange(other.runnable_, nullptr)) {}
  ~Graph();

  void launch(const Stream& stream) const;

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t runnable_ = nullptr;
};

}  // namespace bough::test
