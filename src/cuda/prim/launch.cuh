// Launches that overlap the end of the kernel before, and what such kernels wait for.
//
// INVARIANT: every kernel calls begin() before it reads what another kernel of the call wrote, and all its threads reach it. Memory that
// was complete before the kernel before this one began may be read earlier. Code for architectures before 9.0, which a newer device
// may run from PTX, cannot wait, so it is never launched to overlap.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <utility>

namespace bough::cuda {

__device__ __forceinline__ void begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether the code that this device runs of the library, of which `kernel` is a part, waits in begin().
inline cudaError_t waits(const void* kernel, bool* answer) {
  enum : int8_t { unknown, no, yes };
  static std::atomic<int8_t> known[64];
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  std::atomic<int8_t>* slot = device < 64 ? &known[device] : nullptr;
  int8_t found = slot != nullptr ? slot->load(std::memory_order_relaxed) : static_cast<int8_t>(unknown);
  if (found == unknown) {
    cudaFuncAttributes attributes{};
    error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess) return error;
    found = attributes.ptxVersion >= 90 ? yes : no;
    if (slot != nullptr) slot->store(found, std::memory_order_relaxed);
  }
  *answer = found == yes;
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared_bytes, cudaStream_t stream,
                   Arguments&&... arguments) {
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  bool overlaps = false;
  const cudaError_t error = waits(reinterpret_cast<const void*>(kernel), &overlaps);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace bough::cuda
