#include "eval/mass.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <utility>

#include "base/check.h"
#include "eval/exact_attention.h"

namespace bough::eval {
namespace {

constexpr int kRowStep = 8;

// Sums over rows, blocks and heads.
struct Sums {
  double rows = 0;
  double outside = 0;
  double kept = 0;
  double best = 0;
  double random = 0;
  double top = 0;  // a head's top chunks
  double top_kept = 0;
  double top_best = 0;
  double top_random = 0;
  double staged = 0;           // mass outside, where there are stages
  std::vector<double> stages;  // of it, in what each stage kept

  void add(const Sums& s) {
    for (double Sums::*x : {&Sums::rows, &Sums::outside, &Sums::kept, &Sums::best, &Sums::random, &Sums::top, &Sums::top_kept,
                            &Sums::top_best, &Sums::top_random, &Sums::staged}) {
      this->*x += s.*x;
    }
    stages.resize(std::max(stages.size(), s.stages.size()));
    for (size_t i = 0; i < s.stages.size(); ++i) stages[i] += s.stages[i];
  }

  MassShares shares() const {
    const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
    MassShares m{share(outside, rows), share(kept, outside), share(best, outside),   share(random, outside),
                 share(top_kept, top), share(top_best, top), share(top_random, top), {}};
    for (const double x : stages) m.stages.push_back(share(x, staged));
    return m;
  }
};

// The `count` chunks with most mass, of equal ones the earlier.
std::vector<uint8_t> heaviest(const std::vector<double>& mass, int64_t count) {
  std::vector<int32_t> order(mass.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more = [&mass](int32_t a, int32_t b) {
    const double x = mass[static_cast<size_t>(a)], y = mass[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::nth_element(order.begin(), order.begin() + count, order.end(), more);
  std::vector<uint8_t> in(mass.size());
  for (int64_t j = 0; j < count; ++j) in[static_cast<size_t>(order[static_cast<size_t>(j)])] = 1;
  return in;
}

// One query block: which chunks of the grid between sinks and window are in what.
class BlockMeasure {
 public:
  BlockMeasure(const LayerView& view, int64_t index, int64_t candidates)
      : view_(view), index_(index), candidates_(static_cast<size_t>(candidates)), count_(view.lists.count[index]) {}

  // Mass by chunk of the query heads that share list `list`.
  void measure(int list, std::span<const std::vector<double>> heads, std::span<Sums> sums) const {
    std::vector<double> shared(candidates_);
    for (const std::vector<double>& mass : heads) {
      for (size_t j = 0; j < candidates_; ++j) shared[j] += mass[j];
    }
    const std::vector<uint8_t> best = heaviest(shared, count_), kept = chunks_of(view_.lists, list);
    std::vector<std::vector<uint8_t>> stages;
    for (const BlockList& stage : view_.stages) stages.push_back(chunks_of(stage, list));
    for (size_t h = 0; h < heads.size(); ++h) {
      const std::vector<double>& mass = heads[h];
      const std::vector<uint8_t> top = heaviest(mass, count_);
      Sums& s = sums[h];
      const double outside = std::accumulate(mass.begin(), mass.end(), 0.0);
      const double random = static_cast<double>(count_) / static_cast<double>(candidates_);
      s.outside += outside;
      s.random += outside * random;
      s.kept += mass_in(mass, kept);
      s.best += mass_in(mass, best);
      s.top += static_cast<double>(count_);
      s.top_kept += common(top, kept);
      s.top_best += common(top, best);
      s.top_random += static_cast<double>(count_) * random;
      s.stages.resize(stages.size());
      for (size_t i = 0; i < stages.size(); ++i) s.stages[i] += mass_in(mass, stages[i]);
      if (!stages.empty()) s.staged += outside;
    }
  }

 private:
  // The chunks of the grid that a list of the same or larger chunks holds.
  std::vector<uint8_t> chunks_of(const BlockList& list, int head) const {
    std::vector<uint8_t> in(candidates_);
    for (const int32_t start : std::span(list.list(index_, head), static_cast<size_t>(list.count[index_]))) {
      const auto first = static_cast<size_t>((start - view_.lists.sinks) / view_.lists.chunk);
      const size_t end = std::min(candidates_, first + static_cast<size_t>(list.chunk / view_.lists.chunk));
      for (size_t j = first; j < end; ++j) in[j] = 1;
    }
    return in;
  }

  static double mass_in(const std::vector<double>& mass, const std::vector<uint8_t>& in) {
    double sum = 0;
    for (size_t j = 0; j < mass.size(); ++j) sum += in[j] != 0 ? mass[j] : 0;
    return sum;
  }

  static double common(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    double sum = 0;
    for (size_t j = 0; j < a.size(); ++j) sum += a[j] != 0 && b[j] != 0 ? 1 : 0;
    return sum;
  }

  const LayerView& view_;
  int64_t index_;
  size_t candidates_;
  int64_t count_;
};

class MassMeter {
 public:
  // first_rows: of the blocks to measure.
  MassMeter(std::set<int64_t> first_rows, bool true_positions) : first_rows_(std::move(first_rows)), exact_(true_positions) {}

  void see(const LayerView& view) {
    count_work(view);
    const LayerPlan& plan = view.setup.layer(view.layer);
    if ((plan.mode != Mode::stages && plan.mode != Mode::hip) || view.setup.is_sliding(view.layer)) return;
    for (size_t b = 0; b < view.batch.blocks.size(); ++b) {
      const int64_t candidates = (view.lists.w0[b] - view.lists.sinks) / view.lists.chunk;
      if (first_rows_.count(view.batch.blocks[b].r0) == 0 || view.lists.count[b] >= candidates) continue;
      measure(view, static_cast<int64_t>(b), candidates);
    }
  }

  void report(MassReport& report) const {
    Sums all;
    for (const auto& [layer, heads] : sums_) {
      Sums of_layer;
      LayerMass& m = report.layers.emplace_back();
      m.layer = layer;
      for (const Sums& head : heads) {
        of_layer.add(head);
        m.heads.push_back(head.shares());
      }
      m.all = of_layer.shares();
      all.add(of_layer);
    }
    report.all = all.shares();
    report.keys_searched = searched_ / rows_;
    report.keys_attended = attended_ / rows_;
  }

 private:
  void count_work(const LayerView& v) {
    searched_ += static_cast<double>(v.keys_touched) / v.setup.heads.kv_heads;
    rows_ += static_cast<double>(v.batch.rows());
    const int64_t window = v.setup.attention_of(v.layer).sliding_window;
    for (size_t b = 0; b < v.batch.blocks.size(); ++b) {
      const QueryBlock& block = v.batch.blocks[b];
      const int64_t keys = context_of(v.lists, block, static_cast<int64_t>(b), 0).size();
      for (int64_t later = 0; later < block.rows; ++later) {
        attended_ += static_cast<double>(window > 0 ? std::min(window, keys - later) : keys - later);
      }
    }
  }

  void measure(const LayerView& v, int64_t index, int64_t candidates) {
    const QueryBlock& block = v.batch.blocks[static_cast<size_t>(index)];
    const int group = v.setup.heads.group();
    std::vector<std::vector<double>> mass(static_cast<size_t>(v.setup.heads.heads), std::vector<double>(static_cast<size_t>(candidates)));
    std::vector<Sums>& sums = sums_[v.layer];
    sums.resize(mass.size());
    for (int kv_head = 0; kv_head < v.setup.heads.kv_heads; ++kv_head) {
      exact_.load_keys(v, block.seq, kv_head, block.r1());
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        for (int64_t r = std::min(block.rows, kRowStep) - 1; r < block.rows; r += kRowStep) {
          const std::span<const float> row = exact_.attend(v, block.row + r, head);
          for (int64_t t = v.lists.sinks; t < v.lists.w0[index]; ++t) {
            mass[static_cast<size_t>(head)][static_cast<size_t>((t - v.lists.sinks) / v.lists.chunk)] +=
                static_cast<double>(row[static_cast<size_t>(t)]);
          }
          sums[static_cast<size_t>(head)].rows += 1;
        }
      }
    }
    const BlockMeasure block_measure(v, index, candidates);
    const size_t sharing = mass.size() / static_cast<size_t>(v.lists.list_heads);
    for (size_t list = 0; list < static_cast<size_t>(v.lists.list_heads); ++list) {
      block_measure.measure(static_cast<int>(list), std::span(mass).subspan(list * sharing, sharing),
                            std::span(sums).subspan(list * sharing, sharing));
    }
  }

  std::set<int64_t> first_rows_;
  ExactAttention exact_;
  std::map<int, std::vector<Sums>> sums_;  // by layer: [query heads]
  double searched_ = 0;
  double attended_ = 0;
  double rows_ = 0;  // of all layers
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
  const Status status = session->append(text, {.progress = options.progress});
  engine.observe({});
  BOUGH_RETURN_IF_ERROR(status);
  meter.report(report);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace bough::eval
