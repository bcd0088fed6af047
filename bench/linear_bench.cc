// Linear layers of prefill on the shapes of SmolLM2-135M (hidden 576, FFN 1536, 192 for keys and values), weights in Q4_1: in f32 and,
// where this CPU has them, in 8 bits and by oneDNN in bf16.
//
// A line: shape, product, rows, best and median milliseconds, GFLOP/s of the best, GFLOP for each second of processor time (what one core
// does, also on a busy machine when OMP_WAIT_POLICY is passive), and a checksum that the products of one shape share to rounding.
// Rounding x is part of the time, packing W is not.
#include <ggml-cpu.h>
#include <ggml.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "cpu/gemm_bf16.h"
#include "cpu/gemm_f32.h"
#include "cpu/gemm_int8.h"
#include "cpu/packed_weights.h"
#include "cpu/tile.h"

namespace bough {
namespace {

struct Shape {
  int64_t n, k;
};
constexpr Shape kShapes[] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};

std::vector<float> normal_floats(int64_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& e : x) e = normal(random);
  return x;
}

void measure(const char* product, void (*multiply)(const LinearArgs&), const Shape& shape, const Tensor& w, int64_t rows, int runs) {
  const std::vector<float> x = normal_floats(rows * shape.k, 1.0F, 2);
  std::vector<float> y(static_cast<size_t>(rows * shape.n));
  PackedWeights packed(size_t{1} << 30);
  const LinearArgs args{x.data(), rows, w, Phase::prefill, false, y.data(), &packed};
  std::vector<double> seconds;
  double processor = 0;
  for (int i = 0; i < runs + 1; ++i) {
    const std::clock_t processor_begin = std::clock();
    const auto begin = std::chrono::steady_clock::now();
    multiply(args);
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i == 0) continue;  // packs the weights
    seconds.push_back(took);
    processor += static_cast<double>(std::clock() - processor_begin) / CLOCKS_PER_SEC;
  }
  std::sort(seconds.begin(), seconds.end());
  double checksum = 0;
  for (const float e : y) checksum += std::abs(e);
  const double flops = 2.0 * static_cast<double>(rows * shape.n * shape.k);
  std::printf("%5ld x %5ld  %-8s rows %4ld  best %8.3f ms  median %8.3f ms  %8.1f GFLOP/s  %7.1f a core  checksum %.5g\n",
              static_cast<long>(shape.n), static_cast<long>(shape.k), product, static_cast<long>(rows), seconds.front() * 1e3,
              seconds[seconds.size() / 2] * 1e3, flops / seconds.front() * 1e-9,
              flops * static_cast<double>(seconds.size()) / processor * 1e-9, checksum);
  std::fflush(stdout);
}

void bench_shape(const Shape& shape, int runs) {
  const std::vector<float> floats = normal_floats(shape.n * shape.k, 1.0F / std::sqrt(static_cast<float>(shape.k)), 1);
  const size_t row_bytes = ggml_row_size(GGML_TYPE_Q4_1, shape.k);
  std::vector<std::byte> data(row_bytes * static_cast<size_t>(shape.n));
  ggml_quantize_chunk(GGML_TYPE_Q4_1, floats.data(), data.data(), 0, shape.n, shape.k, nullptr);
  Tensor w;
  w.data = data.data();
  w.type = GGML_TYPE_Q4_1;
  w.rows = shape.n;
  w.cols = shape.k;
  w.row_bytes = row_bytes;
  for (const int64_t rows : {int64_t{64}, int64_t{256}, int64_t{512}}) {
    if (cpu::gemm_int8_takes(w.type)) measure("int8", cpu::gemm_int8, shape, w, rows, runs);
    measure("f32", cpu::gemm_f32, shape, w, rows, runs);
    const auto in_bf16 = [](const LinearArgs& a) { cpu::gemm_bf16({&a, 1}); };
    if (cpu::tile_bf16() != nullptr) measure("bf16", in_bf16, shape, w, rows, runs);
  }
}

}  // namespace
}  // namespace bough

// Usage: linear_bench [runs]
int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::max(1, std::atoi(argv[1])) : 30;
  ggml_cpu_init();
  std::printf("%d threads\n", omp_get_max_threads());
  for (const bough::Shape& shape : bough::kShapes) bough::bench_shape(shape, runs);
  return 0;
}
