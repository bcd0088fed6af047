#include <cuda_bf16.h>

#include "device.h"

namespace bough::bench {
namespace {

__global__ void fill(__nv_bfloat16* p, int64_t count, uint32_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u ^ seed ^ static_cast<uint32_t>(i >> 32) * 40503u;
    x ^= x >> 15;
    x *= 0x2c1b3c6d;
    x ^= x >> 12;
    x *= 0x297a2d39;
    x ^= x >> 15;
    p[i] = __float2bfloat16((static_cast<float>(x & 0xffff) / 65536.0F - 0.5F) * 2.0F);
  }
}

}  // namespace

void fill_bf16(void* p, int64_t count, uint32_t seed) {
  fill<<<1024, 256>>>(static_cast<__nv_bfloat16*>(p), count, seed);
  check(cudaDeviceSynchronize(), "fill");
}

double sum_bf16(const void* p, int64_t count) {
  std::vector<__nv_bfloat16> x(static_cast<size_t>(count));
  check(cudaMemcpy(x.data(), p, x.size() * sizeof(x[0]), cudaMemcpyDeviceToHost), "download");
  double sum = 0;
  for (const __nv_bfloat16 v : x) sum += static_cast<double>(__bfloat162float(v));
  return sum;
}

}  // namespace bough::bench
