#include "cpu/gemm_bf16.h"

#include <ggml.h>
#include <omp.h>

#include <algorithm>
#include <compare>
#include <cstdint>
#include <dnnl.hpp>
#include <exception>
#include <map>
#include <vector>

#include "cpu/packed_weights.h"
#include "cpu/scratch.h"
#include "cpu/tile.h"

namespace bough::cpu {
namespace {

constexpr int64_t kRows = 64;  // rows of a tile; the last tile is padded

// The panel width for N: the widest multiple of 32 up to `most` that divides N, else `most` with a narrower last panel. oneDNN does a
// panel with AMX in the time that it takes to get ready for one of 384.
int64_t panel_width(int64_t n) {
  const int64_t most = tile_amx() != nullptr ? 1536 : 384;
  for (int64_t w = std::min(most, n / 32 * 32); w >= 128; w -= 32) {
    if (n % w == 0) return w;
  }
  return std::min(most, n);
}

dnnl::engine& engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

// One tile times one panel.
struct Kernel {
  dnnl::matmul primitive;
  dnnl::memory::desc x, w, y, scratch;
};

struct Shape {
  int64_t n, k;
  bool add;
  int64_t ldy;
  auto operator<=>(const Shape&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 misreads it
};

const Kernel& kernel(Shape s) {
  static thread_local std::map<Shape, Kernel> cache;
  if (const auto found = cache.find(s); found != cache.end()) return found->second;
  using memory = dnnl::memory;
  const auto type = memory::data_type::bf16;
  const memory::desc x({kRows, s.k}, type, memory::format_tag::ab);
  const memory::desc w({s.k, s.n}, type, memory::format_tag::any);
  const memory::desc y({kRows, s.n}, memory::data_type::f32, memory::dims{s.ldy, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attr.set_post_ops(sum);
  }
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // the primitive is planned for one thread
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, w, y), attr, engine());
  Kernel made{dnnl::matmul(desc), desc.src_desc(), desc.weights_desc(), desc.dst_desc(), desc.scratchpad_desc()};
  omp_set_num_threads(threads);
  return cache.emplace(s, std::move(made)).first->second;
}

// Dequantises output features [from, from + count) to bf16 [count, k]. row [k] is working space.
void dequantise(const Tensor& w, int64_t from, int64_t count, float* row, std::byte* out) {
  const ggml_to_float_t to_float = ggml_get_type_traits(static_cast<ggml_type>(w.type))->to_float;
  for (int64_t n = 0; n < count; ++n) {
    const auto* quantised = static_cast<const std::byte*>(w.data) + static_cast<size_t>(from + n) * w.row_bytes;
    to_float(quantised, row, w.cols);
    tile_bf16()->pack_rows(row, w.cols, DType::bf16, out + static_cast<size_t>(n * w.cols) * 2);
  }
}

// All panels of W, dequantised and in the order that the kernel wants; each thread fills the memory of its panels.
std::byte* packed_panels(const LinearArgs& a, int64_t width, PackedWeights& store) {
  const int64_t panels = (a.w.rows + width - 1) / width;
  const size_t panel_bytes = kernel({width, a.w.cols, a.add, a.w.rows}).w.get_size();
  return store.get(a.w.data, panel_bytes * static_cast<size_t>(panels), [&](std::byte* base) {
    const auto type = dnnl::memory::data_type::bf16;
    const size_t row_bytes = static_cast<size_t>(a.w.cols) * sizeof(float);
    const Scratch scratch(row_bytes + static_cast<size_t>(width * a.w.cols) * 2);
    std::exception_ptr failure;  // no exception may leave a parallel region
#pragma omp parallel for schedule(dynamic)
    for (int64_t p = 0; p < panels; ++p) {
      try {
        const int64_t n = std::min(width, a.w.rows - p * width);
        std::byte* plain = scratch.mine() + row_bytes;
        dequantise(a.w, p * width, n, reinterpret_cast<float*>(scratch.mine()), plain);
        dnnl::memory from({{a.w.cols, n}, type, dnnl::memory::format_tag::ba}, engine(), plain);
        dnnl::memory to(kernel({n, a.w.cols, a.add, a.w.rows}).w, engine(), base + static_cast<size_t>(p) * panel_bytes);
        dnnl::stream stream(engine());
        dnnl::reorder(from, to).execute(stream, from, to);
        stream.wait();
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  });
}

// x in bf16: whole tiles, zero beyond the last row. Kept by the calling thread until its next one.
class PackedRows {
 public:
  explicit PackedRows(const LinearArgs& a)
      : cols_(a.w.cols), tile_bytes_(static_cast<size_t>(kRows * cols_) * 2), tiles_((a.rows + kRows - 1) / kRows) {
    static thread_local std::vector<float> kept;
    if (kept.size() * sizeof(float) < tile_bytes_ * static_cast<size_t>(tiles_) + kAlignment)
      kept.resize((tile_bytes_ * static_cast<size_t>(tiles_) + kAlignment) / sizeof(float));
    const auto address = reinterpret_cast<uintptr_t>(kept.data());
    data_ = reinterpret_cast<std::byte*>(kept.data()) + (kAlignment - address % kAlignment) % kAlignment;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < tiles_; ++t) pack(a, t);
  }
  std::byte* tile(int64_t t) const { return data_ + static_cast<size_t>(t) * tile_bytes_; }
  int64_t tiles() const { return tiles_; }

 private:
  static constexpr size_t kAlignment = 64;

  void pack(const LinearArgs& a, int64_t t) const {
    const int64_t count = std::min(kRows, a.rows - t * kRows) * cols_;
    const float* x = a.x + t * kRows * cols_;
    std::byte* out = tile(t);
    tile_bf16()->pack_rows(x, count, DType::bf16, out);
    const size_t used = static_cast<size_t>(count) * 2;
    std::fill(out + used, out + tile_bytes_, std::byte{0});
  }

  int64_t cols_;
  size_t tile_bytes_;
  int64_t tiles_;
  std::byte* data_ = nullptr;
};

struct Plan {
  const LinearArgs& a;
  int64_t width;       // of a panel
  size_t panel_bytes;  // between panels
  std::byte* panels;
  const PackedRows& x;
};

// One tile of rows times one panel. `spare` holds a padded tile's results and the kernel's scratch.
void multiply(const Plan& plan, int64_t tile, int64_t panel, std::byte* spare) {
  const LinearArgs& a = plan.a;
  const int64_t n = std::min(plan.width, a.w.rows - panel * plan.width);
  const int64_t rows = std::min(kRows, a.rows - tile * kRows);
  const Kernel& k = kernel({n, a.w.cols, a.add, a.w.rows});
  float* y = a.y + tile * kRows * a.w.rows + panel * plan.width;
  auto* padded_y = reinterpret_cast<float*>(spare);
  const bool whole = rows == kRows;
  if (!whole && a.add) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(y + r * a.w.rows, n, padded_y + r * a.w.rows);
  }
  dnnl::stream stream(engine());
  k.primitive.execute(
      stream, {{DNNL_ARG_SRC, dnnl::memory(k.x, engine(), plan.x.tile(tile))},
               {DNNL_ARG_WEIGHTS, dnnl::memory(k.w, engine(), plan.panels + static_cast<size_t>(panel) * plan.panel_bytes)},
               {DNNL_ARG_DST, dnnl::memory(k.y, engine(), whole ? y : padded_y)},
               {DNNL_ARG_SCRATCHPAD, dnnl::memory(k.scratch, engine(), spare + static_cast<size_t>(kRows * a.w.rows) * sizeof(float))}});
  if (!whole) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(padded_y + r * a.w.rows, n, y + r * a.w.rows);
  }
  if (a.bias == nullptr) return;
  const float* bias = a.bias + panel * plan.width;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) y[r * a.w.rows + i] += bias[i];
  }
}

void multiply_all(const LinearArgs& a, const PackedRows& x) {
  const int64_t width = panel_width(a.w.rows);
  const int64_t panels = (a.w.rows + width - 1) / width;
  PackedWeights passing(0);
  const Kernel& wide = kernel({width, a.w.cols, a.add, a.w.rows});
  std::byte* packed = packed_panels(a, width, a.packed != nullptr ? *a.packed : passing);
  const int64_t last = a.w.rows - (panels - 1) * width;
  const size_t scratch_bytes = std::max(wide.scratch.get_size(), kernel({last, a.w.cols, a.add, a.w.rows}).scratch.get_size());
  const Scratch scratch(static_cast<size_t>(kRows * a.w.rows) * sizeof(float) + scratch_bytes);
  const Plan plan{a, width, wide.w.get_size(), packed, x};
  std::exception_ptr failure;  // no exception may leave a parallel region
#pragma omp parallel for schedule(dynamic)
  for (int64_t item = 0; item < x.tiles() * panels; ++item) {
    try {
      multiply(plan, item % x.tiles(), item / x.tiles(), scratch.mine());
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void gemm_bf16(std::span<const LinearArgs> products) {
  if (products.empty()) return;
  const PackedRows x(products.front());
  for (const LinearArgs& a : products) multiply_all(a, x);
}

}  // namespace bough::cpu
