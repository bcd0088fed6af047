#include "cuda/device.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bough::test {
namespace {

size_t guard_bytes() {
  const char* given = std::getenv("BOUGH_CUDA_GUARD");
  return given != nullptr && std::string_view(given) == "0" ? 0 : 4096;
}

bool all_poison(const std::byte* band, size_t bytes) {
  const std::vector<std::byte> bytes_there = download(band, bytes);
  return std::all_of(bytes_there.begin(), bytes_there.end(), [](std::byte x) { return x == kPoison; });
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

DeviceBuffer::DeviceBuffer(size_t bytes, std::byte fill) : bytes_(bytes), guard_(guard_bytes()) {
  check(cudaMalloc(&base_, std::max<size_t>(1, bytes_ + 2 * guard_)), "cudaMalloc");
  data_ = static_cast<std::byte*>(base_) + guard_;
  check(cudaMemset(base_, std::to_integer<int>(kPoison), bytes_ + 2 * guard_), "cudaMemset");
  if (fill != kPoison) this->fill(fill);
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(guard_, other.guard_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() { cudaFree(base_); }

void DeviceBuffer::fill(std::byte value) const {
  check(cudaMemset(data_, std::to_integer<int>(value), bytes_), "cudaMemset");
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void DeviceBuffer::upload(std::span<const std::byte> from) const {
  if (from.size() > bytes_) throw std::runtime_error("a test uploads more than its buffer holds");
  check(cudaMemcpy(data_, from.data(), from.size(), cudaMemcpyHostToDevice), "cudaMemcpy to the device");
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

std::vector<std::byte> DeviceBuffer::download() const { return test::download(static_cast<const std::byte*>(data_), bytes_); }

bool DeviceBuffer::intact() const {
  if (guard_ == 0 || base_ == nullptr) return true;
  return all_poison(static_cast<const std::byte*>(base_), guard_) && all_poison(static_cast<const std::byte*>(data_) + bytes_, guard_);
}

void download(const void* from, size_t bytes, void* to) {
  if (bytes > 0) check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy from the device");
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Stream::wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

Graph::Graph(const Stream& stream, const std::function<void()>& work) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  work();
  check(cudaStreamEndCapture(stream.get(), &graph_), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&runnable_, graph_, 0), "cudaGraphInstantiate");
}

Graph::~Graph() {
  if (runnable_ != nullptr) cudaGraphExecDestroy(runnable_);
  if (graph_ != nullptr) cudaGraphDestroy(graph_);
}

void Graph::launch(const Stream& stream) const { check(cudaGraphLaunch(runnable_, stream.get()), "cudaGraphLaunch"); }

}  // namespace bough::test
