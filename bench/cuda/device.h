// Device memory, timing and random data of the CUDA benchmarks. A CUDA error ends the program with a sentence.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "bough/status.h"

namespace bough::bench {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
inline void check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

struct FreeDevice {
  void operator()(void* p) const { cudaFree(p); }
};

// Zeroed device memory.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes) {
    void* p = nullptr;
    check(cudaMalloc(&p, std::max<size_t>(bytes, 256)), "allocate");
    memory_.reset(p);
    check(cudaMemset(p, 0, std::max<size_t>(bytes, 256)), "clear");
  }
  template <typename T>
  explicit Buffer(const std::vector<T>& x) : Buffer(x.size() * sizeof(T)) {
    check(cudaMemcpy(memory_.get(), x.data(), x.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  void* get() const { return memory_.get(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_.get());
  }

 private:
  std::unique_ptr<void, FreeDevice> memory_;
};

// Values in (-1, 1) as bf16, which depend on (seed, index) alone.
void fill_bf16(void* p, int64_t count, uint32_t seed);
// The sum of bf16 values as a checksum.
double sum_bf16(const void* p, int64_t count);

struct Times {
  double best = 0;  // microseconds
  double median = 0;
};

// What `work(stream)` queues, captured in a CUDA graph and launched `runs` times.
template <typename F>
Times time_graph(const F& work, int runs) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t launchable = nullptr;
  cudaEvent_t start = nullptr, end = nullptr;
  check(cudaStreamCreate(&stream), "stream");
  check(cudaEventCreate(&start), "event");
  check(cudaEventCreate(&end), "event");
  work(stream);
  check(cudaStreamSynchronize(stream), "first run");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "begin capture");
  work(stream);
  check(cudaStreamEndCapture(stream, &graph), "end capture");
  check(cudaGraphInstantiate(&launchable, graph, 0ULL), "instantiate");
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    check(cudaEventRecord(start, stream), "record");
    check(cudaGraphLaunch(launchable, stream), "launch");
    check(cudaEventRecord(end, stream), "record");
    check(cudaStreamSynchronize(stream), "run");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start, end), "time");
    times.push_back(ms * 1000.0);
  }
  std::sort(times.begin(), times.end());
  cudaGraphExecDestroy(launchable);
  cudaGraphDestroy(graph);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  return {times.front(), times[times.size() / 2]};
}

}  // namespace bough::bench
