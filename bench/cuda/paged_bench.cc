// One attention layer on the GPU, Llama-3.1-8B's shape (32 query heads, 8 KV heads, head dim 128, bf16), RoPE extension on, in a CUDA
// graph:  paged_bench [decode] [batch] [prefill] [dense] [short] [summary], all of them by default; BOUGH_BENCH_LENGTHS=32768,... chooses
// lengths, BOUGH_BENCH_PLANS=default,file.json,... the plans of decode and prefill. short: texts that a plan prunes beside the same ones
// seen whole (dense_below), for the table of break-even lengths. summary: what runs the first stage, without a summary of keys and with
// summaries of several steps, at the greatest length. Every line of decode is a step's mean over 8 layers that each have a cache of their
// own.
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>
#include <string>

#include "bough/paged_attention.h"
#include "device.h"

namespace bough::bench {
namespace {

constexpr int kHeads = 32, kKvHeads = 8, kDim = 128, kLayers = 8;
constexpr int kLayer = 10;  // an ordinary one

PagedShape llama_shape() {
  PagedShape s;
  s.heads = kHeads;
  s.kv_heads = kKvHeads;
  s.head_dim = kDim;
  s.trained_context = 131072;
  for (int i = 0; i < kDim / 2; ++i) s.rope.frequencies.push_back(std::pow(500000.0, -2.0 * i / kDim));
  return s;
}

AttentionPlan plan_of(const std::string& name) {
  Result<AttentionPlan> plan = parse_plan(name);
  if (!plan.ok()) check(plan.status());
  return *plan;
}

// A cache of texts of these lengths in shuffled pages of 64 tokens, [page, head, token, dim].
struct LayerCache {
  Buffer k;
  Buffer v;
  Buffer table;
  Buffer summary;
  PagedCache view;
  size_t pages = 0;

  LayerCache(const std::vector<int32_t>& lengths, uint32_t seed) {
    int64_t all = 0, most = 0;
    for (const int32_t length : lengths) {
      all += (length + 63) / 64;
      most = std::max<int64_t>(most, (length + 63) / 64);
    }
    pages = static_cast<size_t>(all);
    const int64_t elements = all * 64 * kKvHeads * kDim;
    k = Buffer(static_cast<size_t>(elements) * 2);
    v = Buffer(static_cast<size_t>(elements) * 2);
    fill_bf16(k.get(), elements, seed * 2 + 1);
    fill_bf16(v.get(), elements, seed * 2 + 2);
    std::vector<int32_t> order(static_cast<size_t>(all));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    std::vector<int32_t> rows(lengths.size() * static_cast<size_t>(most), -1);
    auto next = order.begin();
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto end = next + (lengths[i] + 63) / 64;
      std::copy(next, end, rows.begin() + static_cast<int64_t>(i) * most);
      next = end;
    }
    table = Buffer(rows);
    view.k = {k.get(), 0, {static_cast<int64_t>(64) * kKvHeads * kDim, kDim, static_cast<int64_t>(64) * kDim}};
    view.v = {v.get(), 0, view.k.strides};
    view.page_table = table.as<int32_t>();
    view.table_stride = most;
  }
};

// Gives the cache a summary of every step-th key, [page, row, head, dim], and returns its bytes; of step 0 none.
size_t summarise(LayerCache& cache, int step) {
  cache.view.summary = {};
  cache.view.summary_step = step;
  if (step == 0) return 0;
  constexpr size_t row = kDim * sizeof(uint16_t), heads = kKvHeads;
  const auto rows = static_cast<size_t>(64 / step);
  cache.summary = Buffer(cache.pages * rows * heads * row);
  for (size_t head = 0; head < heads; ++head) {
    cudaMemcpy3DParms copy{};
    copy.srcPtr = {cache.k.as<char>() + head * 64 * row, row * static_cast<size_t>(step), row, heads * rows};
    copy.dstPtr = {cache.summary.as<char>() + head * row, heads * row, row, rows};
    copy.extent = {row, rows, cache.pages};
    copy.kind = cudaMemcpyDeviceToDevice;
    check(cudaMemcpy3D(&copy), "summarise");
  }
  cache.view.summary.data = cache.summary.get();
  cache.view.summary.strides = {static_cast<int64_t>(rows) * kKvHeads * kDim, kKvHeads * kDim, kDim};
  return cache.pages * rows * heads * row;
}

PagedAttention make(const AttentionPlan& plan, const PagedLimits& limits) {
  Result<PagedAttention> made = PagedAttention::create(plan, kLayer, llama_shape(), limits);
  if (!made.ok()) check(made.status());
  return std::move(*made);
}

// Decode of one row a sequence, all texts of these lengths, over layers with caches of their own.
class Decode {
 public:
  Decode(const AttentionPlan& plan, const std::vector<int32_t>& lengths, int layers)
      : sequences_(static_cast<int>(lengths.size())),
        longest_(*std::max_element(lengths.begin(), lengths.end())),
        attention_(make(plan, {sequences_, sequences_, longest_})),
        lengths_(lengths),
        workspace_(attention_.workspace_bytes()) {
    std::vector<int32_t> slots(lengths.size());
    std::iota(slots.begin(), slots.end(), 0);
    slot_ = Buffer(slots);
    for (int due = 0; due <= attention_.stages(); ++due) stage_.emplace_back(std::vector<int32_t>(lengths.size(), due));
    const auto rows = static_cast<int64_t>(lengths.size()) * kHeads * kDim;
    q_ = Buffer(static_cast<size_t>(rows) * 2);
    o_ = Buffer(static_cast<size_t>(rows) * 2);
    fill_bf16(q_.get(), rows, 5);
    for (int i = 0; i < layers; ++i) {
      caches_.emplace_back(lengths, static_cast<uint32_t>(i));
      states_.emplace_back(attention_.state_bytes(sequences_));
      bench::summarise(caches_.back(), attention_.mean_keys());  // its values do not change what is timed
    }
  }

  int stages() const { return attention_.stages(); }
  const std::vector<int>& refresh() const { return attention_.plan().refresh; }

  // Bytes of each layer's.
  size_t summarise(int step) {
    size_t bytes = 0;
    for (LayerCache& cache : caches_) bytes = bench::summarise(cache, step);
    return bytes;
  }

  Times step(int due, int runs) const {
    const Times t = time_graph(
        [&](cudaStream_t stream) {
          for (size_t i = 0; i < caches_.size(); ++i) {
            const PagedBatch batch{sequences_, sequences_, nullptr, lengths_.as<int32_t>(), longest_};
            check(attention_.decode(batch, rows(q_), caches_[i].view, states_[i].get(), sequences_, slot_.as<int32_t>(),
                                    stage_[static_cast<size_t>(due)].as<int32_t>(), due, rows(o_), nullptr, nullptr, workspace_.get(),
                                    stream));
          }
        },
        runs);
    const auto n = static_cast<double>(caches_.size());
    return {t.best / n, t.median / n};
  }
  double checksum() const { return sum_bf16(o_.get(), static_cast<int64_t>(sequences_) * kHeads * kDim); }

 private:
  static PagedRows rows(const Buffer& b) { return {b.get(), kHeads * kDim, kDim}; }

  int sequences_;
  int64_t longest_;
  PagedAttention attention_;
  Buffer lengths_;
  Buffer workspace_;
  Buffer slot_;
  std::vector<Buffer> stage_;
  Buffer q_;
  Buffer o_;
  std::vector<LayerCache> caches_;
  std::vector<Buffer> states_;
};

// Steps of each kind and their mean over a refresh cycle.
void print_decode(const Decode& d, const std::string& what) {
  std::vector<Times> kinds;
  for (int due = 0; due <= d.stages(); ++due) kinds.push_back(d.step(due, 20));
  const int cycle = d.refresh().front();
  double best = 0, median = 0;
  for (int i = 0; i < cycle; ++i) {
    size_t due = 0;
    while (due < d.refresh().size() && i % d.refresh()[due] != 0) ++due;
    best += kinds[due].best / cycle;
    median += kinds[due].median / cycle;
  }
  std::printf("%s, us best (median):", what.c_str());
  for (size_t i = 0; i + 1 < kinds.size(); ++i) std::printf(" from stage %zu %.1f (%.1f),", i, kinds[i].best, kinds[i].median);
  std::printf(" cached %.1f (%.1f), mean of the cycle %.1f (%.1f), checksum %.6f\n", kinds.back().best, kinds.back().median, best, median,
              d.checksum());
  std::fflush(stdout);
}

// The last `rows` queries of one text of `length` tokens.
void prefill(AttentionPlan plan, const std::string& name, int64_t length, int64_t rows, int summary_step = 0) {
  plan.tail = 0;
  const PagedAttention attention = make(plan, {rows, 1, length});
  LayerCache cache({static_cast<int32_t>(length)}, 3);
  summarise(cache, attention.mean_keys() > 0 ? attention.mean_keys() : summary_step);
  const Buffer start(std::vector<int32_t>{0, static_cast<int32_t>(rows)}), lengths(std::vector<int32_t>{static_cast<int32_t>(length)});
  const Buffer workspace(attention.workspace_bytes()), q(static_cast<size_t>(rows * kHeads * kDim) * 2),
      o(static_cast<size_t>(rows * kHeads * kDim) * 2);
  fill_bf16(q.get(), rows * kHeads * kDim, 5);
  const PagedBatch batch{1, rows, start.as<int32_t>(), lengths.as<int32_t>(), length};
  const PagedRows q_rows{q.get(), kHeads * kDim, kDim}, o_rows{o.get(), kHeads * kDim, kDim};
  const auto prune = [&](cudaStream_t stream) { check(attention.prune(batch, q_rows, cache.view, workspace.get(), stream)); };
  const auto attend = [&](cudaStream_t stream) {
    check(attention.attend(batch, q_rows, cache.view, o_rows, nullptr, nullptr, workspace.get(), stream));
  };
  const Times search = time_graph(prune, 5), rest = time_graph(attend, 5);
  const Times all = time_graph(
      [&](cudaStream_t stream) {
        prune(stream);
        attend(stream);
      },
      5);
  std::printf("prefill, %s, %lld queries at %lld, ms best (median): %.3f (%.3f), of that prune %.3f, attend %.3f, checksum %.4f\n",
              name.c_str(), static_cast<long long>(rows), static_cast<long long>(length), all.best / 1000, all.median / 1000,
              search.best / 1000, rest.best / 1000, sum_bf16(o.get(), rows * kHeads * kDim));
  std::fflush(stdout);
}

// A refresh of all stages and a prefill, without a summary and with summaries of the steps that the plan allows.
void summaries(const std::string& plan_name, int64_t length) {
  const AttentionPlan plan = plan_of(plan_name);
  const int widest = std::min(64, plan.layer(kLayer).stages.front().chunk / 4);
  Decode decode(plan, {static_cast<int32_t>(length)}, kLayers);
  const auto name_of = [&](int step) { return plan_name + (step == 0 ? ", no summary" : ", summary of step " + std::to_string(step)); };
  for (const int step : {0, widest, widest / 2, widest / 4}) {
    const size_t bytes = decode.summarise(step);
    const Times t = decode.step(0, 20);
    std::printf("decode from stage 0, %s, %.1f MB a layer, %lld, us best (median): %.1f (%.1f), checksum %.6f\n", name_of(step).c_str(),
                static_cast<double>(bytes) / 1e6, static_cast<long long>(length), t.best, t.median, decode.checksum());
    std::fflush(stdout);
  }
  for (const int step : {0, widest, widest / 2, widest / 4}) prefill(plan, name_of(step), length, 8192, step);
}

std::vector<int64_t> lengths_of(std::vector<int64_t> otherwise) {
  const char* text = std::getenv("BOUGH_BENCH_LENGTHS");
  if (text == nullptr) return otherwise;
  std::vector<int64_t> lengths;
  for (const char* p = text; *p != '\0';) {
    char* end = nullptr;
    lengths.push_back(std::strtoll(p, &end, 10));
    p = *end == ',' ? end + 1 : end;
  }
  return lengths;
}

// Names of presets or files of plans.
std::vector<std::string> plans_of() {
  const char* text = std::getenv("BOUGH_BENCH_PLANS");
  if (text == nullptr) return {"3k", "default", "descent"};
  std::vector<std::string> names;
  std::istringstream list(text);
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

void run(const std::string& what) {
  const std::vector<int64_t> lengths = lengths_of({32768, 131072, 524288, 1048576});
  if (what == "decode") {
    for (const std::string& name : plans_of()) {
      for (const int64_t length : lengths) {
        print_decode(Decode(plan_of(name), {static_cast<int32_t>(length)}, kLayers), "decode, " + name + ", " + std::to_string(length));
      }
    }
  } else if (what == "batch") {
    const std::vector<int32_t> same(32, 131072);
    print_decode(Decode(plan_of("3k"), same, 1), "decode, 3k, 32 texts of 131072");
    std::vector<int32_t> mixed;
    for (int i = 0; i < 32; ++i) mixed.push_back(static_cast<int32_t>(1024.0 * std::pow(1024.0, i / 31.0)));
    print_decode(Decode(plan_of("3k"), mixed, 1), "decode, 3k, 32 texts of 1024 to 1048576");
  } else if (what == "prefill") {
    for (const std::string& name : plans_of()) {
      for (const int64_t length : lengths) prefill(plan_of(name), name, length, 8192);
    }
  } else if (what == "dense") {
    for (const int64_t length : {int64_t{8192}, int64_t{16384}, int64_t{32768}}) prefill(plan_of("dense"), "dense", length, 8192);
  } else if (what == "short") {
    for (const int64_t length : lengths_of({4096, 6144, 8192, 12288, 16384, 24576})) {
      for (const int64_t dense_below : {int64_t{0}, length + 1}) {
        AttentionPlan plan = plan_of("3k");
        plan.dense_below = dense_below;
        const std::string name = dense_below == 0 ? "3k" : "3k seen whole";
        print_decode(Decode(plan, {static_cast<int32_t>(length)}, kLayers), "decode, " + name + ", " + std::to_string(length));
        prefill(plan, name, length, std::min<int64_t>(length, 8192));
      }
    }
  } else if (what == "summary") {
    for (const char* name : {"3k", "descent"}) summaries(name, lengths.back());
  } else {
    std::fprintf(stderr, "unknown part '%s'; known: decode, batch, prefill, dense, short, summary\n", what.c_str());
    std::exit(1);
  }
}

}  // namespace
}  // namespace bough::bench

int main(int argc, char** argv) {
  std::vector<std::string> parts(argv + 1, argv + argc);
  if (parts.empty()) parts = {"decode", "batch", "prefill", "dense", "short", "summary"};
  for (const std::string& part : parts) bough::bench::run(part);
  return 0;
}
