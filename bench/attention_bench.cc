// Single attention steps on the shapes of SmolLM2-135M (9 query heads, 3 KV heads, d 64), for every body: the scans of the default
// plan's stages, attend over a context of 3,328 keys in prefill, attend_cached over the same in decode.
//
// A line: step, body, KV type, best and median milliseconds, GFLOP/s of the best, GFLOP for each second of processor time (what one
// core does, also on a busy machine when OMP_WAIT_POLICY is passive), and a checksum that the bodies of one step share to rounding.
// Products and sums count, the exponentials do not; a scan counts two keys a round and chunk.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kv/page_pool.h"
#include "steps/attention_bodies.h"
#include "steps/kv_row.h"

namespace bough {
namespace {

constexpr int kHeads = 9;
constexpr int kKvHeads = 3;
constexpr int kDim = 64;
constexpr int kLayers = 8;  // of the cache; one of them is used
constexpr int kLayer = 3;
constexpr int64_t kSinks = 256;
constexpr int64_t kWindow = 1024;
constexpr int64_t kTokens = 2048 * 64 + kSinks + kWindow + 512;  // 2,048 chunks of 64 below the window of the last 512 rows
constexpr int64_t kContext = 3328;
constexpr int64_t kMeans = 131072;  // tokens that a summary averages

// Layer kLayer of a cache whose pages lie in the order of their text, as a session that reads alone gets them.
struct Cache {
  KvShape shape;
  PagePool pool;
  PageList list{&pool};

  explicit Cache(DType type) : shape{type, kLayers, kKvHeads, kDim}, pool(shape) {
    if (!list.extend(kTokens).ok()) std::exit(1);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    constexpr size_t different = 61;  // pages; the others repeat them
    PageTable table = list.table();
    std::vector<float> x(kDim);
    for (int64_t token = 0; token < static_cast<int64_t>(different * kPageTokens); ++token) {
      for (int plane = 0; plane < 2 * kKvHeads; ++plane) {
        for (float& e : x) e = normal(random);
        store_token(shape, table, plane % 2 == 0 ? shape.k_offset(kLayer, plane / 2) : shape.v_offset(kLayer, plane / 2), token, x.data());
      }
    }
    const size_t bytes = 2 * shape.plane_bytes();
    const size_t begin = bytes * kLayer;
    for (size_t p = different; p < list.pages().size(); ++p)
      std::copy_n(list.pages()[p % different] + begin, bytes, list.pages()[p] + begin);
  }
};

// `blocks` query blocks of `rows` at the end of the sequence.
struct Queries {
  Batch batch;
  std::vector<float> q;

  Queries(const Cache& cache, int blocks, int rows) {
    const int64_t t = static_cast<int64_t>(blocks) * rows;
    batch.sequences.push_back({cache.list.pages().data(), kTokens});
    batch.ids.resize(static_cast<size_t>(t));
    batch.row_seq.resize(static_cast<size_t>(t));
    for (int64_t i = 0; i < t; ++i) batch.positions.push_back(kTokens - t + i);
    for (int b = 0; b < blocks; ++b) batch.blocks.push_back({0, b * rows, rows, kTokens - t + int64_t{b} * rows});
    batch.decode_rows = rows == 1 ? blocks : 0;
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    q.resize(static_cast<size_t>(t * kHeads * kDim));
    for (float& x : q) x = normal(random);
  }
};

HeadShape heads() { return {kHeads, kKvHeads, kDim, 0.125F}; }

RopeTable rope_table() {
  RopeParams params{RopeLayout::interleaved, kDim, {}};
  for (int i = 0; i < kDim / 2; ++i) params.frequencies.push_back(std::pow(100000.0, -2.0 * i / kDim));
  RopeTable table(std::move(params));
  table.reserve(8192);
  return table;
}

double checksum(const std::vector<float>& x) {
  double sum = 0;
  for (const float v : x) sum += std::abs(v);
  return sum;
}

std::string wanted_step;  // part of the name of the steps to run

// Fills the caches with something else, as the layers between two calls of a step do.
void evict() {
  static const std::vector<float> other(size_t{32} << 20, 1.0F);
  float sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
  for (size_t i = 0; i < other.size(); i += 16) sum += other[i];
  if (sum < 0) std::abort();
}

// Runs f and prints its line; slow steps run fewer times. cold: what it reads is in memory.
template <typename F>
void measure(const std::string& step, const AttentionBodies& body, DType type, double flops, int runs, const std::vector<float>& result,
             const F& f, bool cold = false) {
  if (step.find(wanted_step) == std::string::npos) return;
  std::vector<double> seconds;
  double spent = 0;
  double processor = 0;
  for (int i = 0; i < runs + 1 && (i < 2 || spent < 2.0); ++i) {
    if (cold) evict();
    const std::clock_t processor_begin = std::clock();
    const auto begin = std::chrono::steady_clock::now();
    f();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    spent += took;
    if (i == 0) continue;  // warms up
    seconds.push_back(took);
    processor += static_cast<double>(std::clock() - processor_begin) / CLOCKS_PER_SEC;
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("%-42s %-12s kv %-5s best %9.3f ms  median %9.3f ms  %8.1f GFLOP/s  %7.1f a core  checksum %.6g\n", step.c_str(),
              std::string(body.name).c_str(), name_of(type), seconds.front() * 1e3, seconds[seconds.size() / 2] * 1e3,
              flops / seconds.front() * 1e-9, flops * static_cast<double>(seconds.size()) / processor * 1e-9, checksum(result));
  std::fflush(stdout);
}

// Ascending random starts of chunks, `count` a block.
std::vector<int32_t> random_starts(int64_t blocks, int64_t count, int chunk) {
  std::mt19937 random(3);
  std::vector<int32_t> all(static_cast<size_t>((kTokens - 512 - kWindow - kSinks) / chunk));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(kSinks + static_cast<int64_t>(i) * chunk);
  std::vector<int32_t> starts;
  for (int64_t b = 0; b < blocks; ++b) {
    std::vector<int32_t> some;
    std::sample(all.begin(), all.end(), std::back_inserter(some), count, random);
    starts.insert(starts.end(), some.begin(), some.end());
  }
  return starts;
}

struct ScanShape {
  int64_t chunks;
  int chunk;
  int stride;
  bool grid;
  Scan scan;
  bool summary = false;
  int piece = 0;
  bool cold = false;
};

void bench_scan(const AttentionBodies& body, const Cache& cache, const Queries& queries, const ScanShape& shape, int runs) {
  const auto blocks = static_cast<int64_t>(queries.batch.blocks.size());
  const std::vector<int32_t> starts = random_starts(blocks, shape.chunks, shape.chunk);
  const std::vector<int32_t> count(static_cast<size_t>(blocks), static_cast<int32_t>(shape.chunks));
  const std::vector<uint8_t> active(static_cast<size_t>(blocks), 1);
  const RopeTable rope = rope_table();
  std::vector<float> scores(static_cast<size_t>(blocks * kKvHeads * shape.chunks));
  ScanArgs args;
  args.batch = &queries.batch;
  args.kv = cache.shape;
  args.heads = heads();
  args.layer = kLayer;
  args.q = queries.q.data();
  args.active = active.data();
  args.candidates = {shape.grid ? nullptr : starts.data(), count.data(), 1, shape.chunks, kSinks, shape.chunk};
  args.rounds = shape.piece > 0 ? 0 : StagePlan{.chunk = shape.chunk}.descent_rounds();
  args.piece = shape.piece;
  args.query_stride = shape.stride;
  args.scan = shape.scan;
  args.scan_window = kWindow - 64;
  args.trained_context = 8192;
  args.rope = &rope;
  args.scores = scores.data();
  args.score_capacity = shape.chunks;
  KeySummary summary;
  const KeySummary* const summaries[] = {&summary};
  if (shape.summary) {
    const int64_t chunks = shape.piece > 0 ? kMeans / shape.chunk : shape.chunks;
    extend_summary({cache.shape, queries.batch.sequences[0], kLayer, shape.chunk, shape.piece, kSinks, chunks, body.key_means}, summary);
    args.summaries = summaries;
  }
  const int rows = pooled_rows(queries.batch.blocks[0], shape.stride, Pool::mean);
  const double of_chunk = shape.piece > 0 ? static_cast<double>(shape.chunk / shape.piece) : 2.0 * (1 + std::log2(shape.chunk));
  const double probes = of_chunk * static_cast<double>(shape.chunks);
  const double flops = 2.0 * kDim * probes * rows * kHeads * static_cast<double>(blocks);
  const std::string step = "scan " + std::to_string(shape.chunks) + "x" + std::to_string(shape.chunk) +
                           (shape.piece > 0 ? " by " + std::to_string(shape.piece) : "") + " rows " + std::to_string(rows) +
                           (shape.scan == Scan::relative ? " relative" : " indexed") + (shape.summary ? " summary x" : " x") +
                           std::to_string(blocks) + (shape.cold ? " cold" : "");
  measure(
      step, body, cache.shape.type, flops, runs, scores, [&] { body.scan(args); }, shape.cold);
}

// The summary of one layer's keys as means of 8, from nothing: what the first search of a restored session makes.
void bench_summary(const AttentionBodies& body, const Cache& cache, int runs) {
  const PageTable pages{cache.list.pages().data(), kTokens};
  KeySummary summary;
  constexpr int64_t chunks = kMeans / 64;
  const double sums = static_cast<double>(kMeans) * kKvHeads * kDim;
  const auto build = [&] {
    summary = {};
    extend_summary({cache.shape, pages, kLayer, 64, 8, kSinks, chunks, body.key_means}, summary);
  };
  measure("summary of means, " + std::to_string(kMeans), body, cache.shape.type, sums, runs, {}, build);
}

// The lists of plan `3k` once everything is long: sinks, 2,048 selected, the window.
struct Selection {
  std::vector<int64_t> w0;
  std::vector<int32_t> count;
  std::vector<int32_t> start;

  explicit Selection(const Queries& queries) {
    constexpr int64_t selected = (kContext - kSinks - kWindow) / 8;
    const auto blocks = static_cast<int64_t>(queries.batch.blocks.size());
    for (const QueryBlock& block : queries.batch.blocks) w0.push_back(window_start(block.r0, block.r1(), kSinks, kWindow, 8));
    count.assign(static_cast<size_t>(blocks), static_cast<int32_t>(selected));
    start = random_starts(blocks, selected, 8);
  }
  BlockList view() const { return {w0.data(), start.data(), count.data(), 1, count[0], 8, kSinks}; }
};

void bench_attend(const AttentionBodies& body, const Cache& cache, const Queries& queries, int runs) {
  const Selection selection(queries);
  const RopeTable rope = rope_table();
  std::vector<float> o(queries.q.size());
  AttendArgs args;
  args.batch = &queries.batch;
  args.kv = cache.shape;
  args.heads = heads();
  args.layer = kLayer;
  args.q = queries.q.data();
  args.lists = selection.view();
  args.rope = &rope;
  args.o = o.data();
  double pairs = 0;
  for (size_t b = 0; b < queries.batch.blocks.size(); ++b) {
    const QueryBlock& block = queries.batch.blocks[b];
    const int64_t size = context_of(args.lists, block, static_cast<int64_t>(b), 0).size();
    for (int i = 0; i < block.rows; ++i) pairs += static_cast<double>(size - block.rows + i + 1);
  }
  const std::string step = "attend " + std::to_string(kContext) + " rows " + std::to_string(queries.batch.blocks[0].rows) + " x" +
                           std::to_string(queries.batch.blocks.size());
  measure(step, body, cache.shape.type, 4.0 * kDim * kHeads * pairs, runs, o, [&] { body.attend(args); });
}

void bench_cached(const AttentionBodies& body, const Cache& cache, const Queries& queries, int runs) {
  const Selection selection(queries);
  const RopeTable rope = rope_table();
  std::vector<float> o(queries.q.size());
  std::vector<WorkingSet> sets(queries.batch.blocks.size());
  std::vector<const WorkingSet*> pointers;
  std::vector<WorkingSetArgs> builds;
  std::vector<Context> contexts;
  contexts.reserve(sets.size());
  double keys = 0;
  for (size_t row = 0; row < sets.size(); ++row) {
    contexts.push_back(context_of(selection.view(), queries.batch.blocks[row], static_cast<int64_t>(row), 0));
    keys += static_cast<double>(contexts.back().size());
    if (!body.working_set_reserve(cache.shape, contexts.back().size(), sets[row])) std::exit(1);
    builds.push_back({&queries.batch.sequences[0], cache.shape, kLayer, &rope, &contexts.back(), 1, 0, {}, &sets[row]});
    pointers.push_back(&sets[row]);
  }
  const std::string rows = " x" + std::to_string(sets.size());
  const auto build_all = [&] {
    for (const WorkingSetArgs& build : builds) body.working_set_build(build);
  };
  build_all();
  AttendCachedArgs args;
  args.batch = &queries.batch;
  args.kv = cache.shape;
  args.heads = heads();
  args.q = queries.q.data();
  args.sets = pointers.data();
  args.rope = &rope;
  args.o = o.data();
  measure("attend_cached " + std::to_string(kContext) + rows, body, cache.shape.type, 4.0 * kDim * kHeads * keys, runs, o,
          [&] { body.attend_cached(args); });
  measure("working_set_build " + std::to_string(kContext) + rows, body, cache.shape.type, 3.0 * kDim * kKvHeads * keys, runs, o, build_all);
}

void bench_body(const AttentionBodies& body, const Cache& cache, int runs) {
  const bool oracle = body.name == "ref";
  const Queries prefill(cache, oracle ? 1 : 8, 64);
  const Queries decode(cache, 1, 1);
  const Queries tail(cache, oracle ? 1 : 40, 1);
  for (const ScanShape& shape : {ScanShape{2048, 64, 4, true, Scan::relative}, ScanShape{2048, 64, 4, true, Scan::relative, true},
                                 ScanShape{1024, 16, 4, false, Scan::relative}, ScanShape{1024, 8, 1, false, Scan::relative},
                                 ScanShape{1024, 8, 1, false, Scan::chunk_indexed}}) {
    bench_scan(body, cache, prefill, shape, oracle ? 1 : runs);
    bench_scan(body, cache, decode, shape, oracle ? 1 : runs);
    bench_scan(body, cache, tail, shape, oracle ? 1 : runs);
  }
  // What `default` does: for all blocks, then for a row by itself.
  bench_scan(body, cache, prefill, {2048, 64, 16, true, Scan::relative, true, 8}, oracle ? 1 : runs);
  for (const ScanShape& shape :
       {ScanShape{2048, 64, 1, true, Scan::relative, true, 8, true}, ScanShape{4096, 16, 1, false, Scan::relative, true, 8, true},
        ScanShape{2048, 8, 1, false, Scan::relative, false, 1}, ScanShape{2048, 8, 1, false, Scan::relative, false, 1, true}}) {
    bench_scan(body, cache, decode, shape, oracle ? 1 : runs);
  }
  bench_summary(body, cache, oracle ? 1 : runs);
  bench_attend(body, cache, prefill, oracle ? 1 : runs);
  bench_attend(body, cache, decode, oracle ? 1 : runs);
  bench_cached(body, cache, decode, oracle ? 1 : runs);
}

}  // namespace
}  // namespace bough

// Usage: attention_bench [runs [body [part of a step's name]]]
int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::max(1, std::atoi(argv[1])) : 15;
  const std::string only = argc > 2 ? argv[2] : "";
  if (argc > 3) bough::wanted_step = argv[3];
  std::printf("%d threads\n", omp_get_max_threads());
  for (const bough::DType type : bough::kAllDTypes) {
    const bough::Cache cache(type);
    for (const bough::AttentionBodies& body : bough::attention_bodies()) {
      if (bough::pick_attention_bodies(type, body.name) == nullptr || (!only.empty() && body.name != only)) continue;
      bough::bench_body(body, cache, runs);
    }
  }
  return 0;
}
