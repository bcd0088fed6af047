#include "eval/mass.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "attention/observer.h"
#include "base/check.h"
#include "steps/kv_row.h"

namespace bough::eval {
namespace {

constexpr int kRowStep = 8;

// Sums over rows and heads.
struct Sums {
  double rows = 0;
  double outside = 0;
  double kept = 0;
  double best = 0;
  double random = 0;

  void add(const Sums& s) {
    rows += s.rows;
    outside += s.outside;
    kept += s.kept;
    best += s.best;
    random += s.random;
  }
  LayerMass shares(int layer) const {
    if (outside == 0) return {.layer = layer};
    return {layer, outside / rows, kept / outside, best / outside, random / outside};
  }
};

class MassMeter {
 public:
  // first_rows: of the blocks to measure.
  MassMeter(std::set<int64_t> first_rows, bool true_positions) : first_rows_(std::move(first_rows)), true_positions_(true_positions) {}

  void see(const LayerView& view) {
    const LayerPlan& plan = view.setup.layer(view.layer);
    if (plan.mode != Mode::stages && plan.mode != Mode::hip) return;
    for (size_t b = 0; b < view.batch.blocks.size(); ++b) {
      const auto index = static_cast<int64_t>(b);
      const int64_t candidates = (view.lists.w0[b] - view.lists.sinks) / view.lists.chunk;
      if (first_rows_.count(view.batch.blocks[b].r0) == 0 || view.lists.count[b] >= candidates) continue;
      sums_[view.layer].add(measure(view, index, candidates));
    }
  }

  const std::map<int, Sums>& sums() const { return sums_; }

 private:
  // The keys of one KV head before `end`, turned, [d][end].
  void load_keys(const LayerView& v, const PageTable& pages, int kv_head, int64_t end) {
    const KvShape& kv = v.setup.kv;
    std::vector<float> row(static_cast<size_t>(kv.head_dim));
    keys_.resize(row.size() * static_cast<size_t>(end));
    for (int64_t t = 0; t < end; ++t) {
      load_row(pages.row(t, kv.k_offset(v.layer, kv_head), kv.row_bytes()), kv.type, kv.head_dim, row.data());
      if (true_positions_) turn(v.rope, t, row.size(), row.data());
      for (size_t i = 0; i < row.size(); ++i) keys_[i * static_cast<size_t>(end) + static_cast<size_t>(t)] = row[i];
    }
  }

  void turn(const RopeTable& rope, int64_t position, size_t d, float* row) {
    RopeTable& table = tables_.try_emplace(&rope, rope.params()).first->second;
    table.reserve(position + 1);
    rope_row(row, table.cos_row(position), table.sin_row(position), table.params(), static_cast<int>(d), row);
  }

  // Probabilities of one row and head over the keys before `end` that it may see.
  void attend(const LayerView& v, int64_t row, int head, int64_t end) {
    const auto d = static_cast<size_t>(v.setup.heads.head_dim);
    const int64_t own = v.batch.positions[static_cast<size_t>(row)];
    const float* q = v.q + (row * v.setup.heads.heads + head) * v.setup.heads.head_dim;
    std::vector<float> query(q, q + d);
    turn(v.rope, true_positions_ ? own : v.setup.layer(v.layer).window, d, query.data());
    if (!true_positions_) magnify_row(v.rope.params(), query.data());
    const auto visible = static_cast<size_t>(own + 1);
    scores_.assign(visible, 0.0F);
    for (size_t i = 0; i < d; ++i) {
      const float x = query[i] * v.setup.heads.scale;
      const float* key = &keys_[i * static_cast<size_t>(end)];
      for (size_t t = 0; t < visible; ++t) scores_[t] += x * key[t];
    }
    const float cap = v.setup.heads.softcap;
    if (cap > 0) {
      for (float& s : scores_) s = cap * std::tanh(s / cap);
    }
    const float top = *std::max_element(scores_.begin(), scores_.end());
    double sum = 0;
    for (float& s : scores_) sum += s = std::exp(s - top);
    for (float& s : scores_) s = static_cast<float>(s / sum);
  }

  Sums measure(const LayerView& v, int64_t index, int64_t candidates) {
    const QueryBlock& block = v.batch.blocks[static_cast<size_t>(index)];
    const PageTable& pages = v.batch.sequences[static_cast<size_t>(block.seq)];
    const int lists = v.lists.list_heads, group = v.setup.heads.group();
    std::vector<std::vector<double>> mass(static_cast<size_t>(lists), std::vector<double>(static_cast<size_t>(candidates)));
    Sums sums;
    for (int kv_head = 0; kv_head < v.setup.heads.kv_heads; ++kv_head) {
      load_keys(v, pages, kv_head, block.r1());
      std::vector<double>& of_list = mass[lists == 1 ? 0 : static_cast<size_t>(kv_head)];
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        for (int64_t r = std::min(block.rows, kRowStep) - 1; r < block.rows; r += kRowStep) {
          attend(v, block.row + r, head, block.r1());
          for (int64_t t = v.lists.sinks; t < v.lists.w0[index]; ++t) {
            of_list[static_cast<size_t>((t - v.lists.sinks) / v.lists.chunk)] += static_cast<double>(scores_[static_cast<size_t>(t)]);
          }
          sums.rows += 1;
        }
      }
    }
    const auto count = static_cast<ptrdiff_t>(v.lists.count[index]);
    for (int h = 0; h < lists; ++h) {
      std::vector<double>& chunks = mass[static_cast<size_t>(h)];
      double all = 0;
      for (const double x : chunks) all += x;
      sums.outside += all;
      sums.random += all * static_cast<double>(count) / static_cast<double>(candidates);
      for (const int32_t start : std::span(v.lists.list(index, h), static_cast<size_t>(count))) {
        sums.kept += chunks[static_cast<size_t>((start - v.lists.sinks) / v.lists.chunk)];
      }
      std::nth_element(chunks.begin(), chunks.begin() + count, chunks.end(), std::greater<>());
      for (ptrdiff_t j = 0; j < count; ++j) sums.best += chunks[static_cast<size_t>(j)];
    }
    return sums;
  }

  std::set<int64_t> first_rows_;
  bool true_positions_;
  std::map<int, Sums> sums_;                      // by layer
  std::map<const RopeTable*, RopeTable> tables_;  // as the model's, for true positions
  std::vector<float> keys_;
  std::vector<float> scores_;
};

// Block starts, spread evenly over the text from where the widest layer prunes.
Result<std::set<int64_t>> sampled_blocks(const AttentionPlan& plan, int64_t length, int count) {
  int64_t first = -1;
  for (const LayerPlan& l : plan.distinct_layers()) {
    if (l.k > 0) first = std::max({first, l.sinks + l.window + l.k + l.last_chunk(), plan.dense_below});
  }
  if (first < 0)
    return Status(Code::invalid_argument, "the attention plan selects nothing: its mode has to be stages or hip in some layer");
  const int64_t grain = plan.query_block();
  first = (first + grain - 1) / grain * grain + grain;
  if (first + grain > length) {
    return Status(Code::invalid_argument, "a text of " + std::to_string(length) +
                                              " tokens is too short: with this attention plan at least " + std::to_string(first + grain) +
                                              " are needed for anything to be pruned");
  }
  std::set<int64_t> starts;
  for (int64_t i = 0; i < count; ++i) starts.insert((first + (length - grain - first) * (2 * i + 1) / (2 * count)) / grain * grain);
  return starts;
}

}  // namespace

Result<MassReport> run_mass(Engine& engine, const Corpus& corpus, const MassOptions& options) {
  if (options.blocks < 1) return Status(Code::invalid_argument, "blocks is " + std::to_string(options.blocks) + ", must be at least 1");
  BOUGH_ASSIGN_OR_RETURN(std::set<int64_t> blocks, sampled_blocks(engine.plan(), options.length, options.blocks));
  BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> text, engine.tokenize("", /*add_bos=*/true));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> piece, corpus.piece(0, options.length - static_cast<int64_t>(text.size())));
  text.insert(text.end(), piece.begin(), piece.end());
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  MassReport report;
  report.blocks = static_cast<int64_t>(blocks.size());
  report.true_positions = options.length <= engine.info().trained_context;
  MassMeter meter(std::move(blocks), report.true_positions);
  const auto start = std::chrono::steady_clock::now();
  engine.observe([&meter](const LayerView& view) { meter.see(view); });
  Status status = session->append(text, {.progress = options.progress});
  engine.observe({});
  BOUGH_RETURN_IF_ERROR(status);
  Sums all;
  for (const auto& [layer, sums] : meter.sums()) {
    report.layers.push_back(sums.shares(layer));
    all.add(sums);
  }
  report.all = all.shares(-1);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace bough::eval
