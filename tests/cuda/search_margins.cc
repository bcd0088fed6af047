#include "cuda/search_margins.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace bough::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kMostIndices = 8;  // that a candidate's own may be, before anything counts as possible

}  // namespace

SearchMargins::SearchMargins(const Oracle& oracle, const Batch& batch, size_t block, std::span<const float> q)
    : oracle_(oracle), block_(batch.blocks[block]), pages_(batch.sequences[static_cast<size_t>(block_.seq)]), q_(q) {}

std::vector<Candidate> SearchMargins::grid(int64_t w0) const {
  std::vector<Candidate> all;
  for (int64_t start = oracle_.layer().sinks; start < w0; start += oracle_.layer().stages.front().chunk) all.push_back({start});
  return all;
}

int64_t SearchMargins::keep(int stage) const {
  const auto i = static_cast<size_t>(stage);
  return oracle_.layer().kept_after(i, block_.rows) / oracle_.layer().stages[i].chunk;
}

SearchMargins::Range SearchMargins::best_piece(const Head& head, const ScanPositions& positions, int64_t start, const StagePlan& stage,
                                               int64_t index) const {
  double best = -kInfinity;
  for (int64_t token = start; token < start + stage.chunk; token += stage.piece) {
    const int64_t position = positions.turns_keys() ? positions.key(token + stage.piece / 2, index) : -1;
    best = std::max(best, double{ref::best_mean_score(head.search, token, stage.piece, position, head.right)});
  }
  return {best, best};
}

SearchMargins::Range SearchMargins::descend(const Head& head, const ScanPositions& positions, int64_t start, int chunk, int rounds,
                                            int64_t index, double tolerance) const {
  const auto score = [&](int64_t token, const ref::Rows& rows) {
    return double{ref::best_score(head.search, token, positions.turns_keys() ? positions.key(token, index) : -1, rows)};
  };
  const double a = score(start + chunk / 4, head.left), z = score(start + chunk / 2 + chunk / 4, head.right);
  Range range{std::max(a, z), std::max(a, z)};
  if (rounds == 1) return range;
  Range below{kInfinity, -kInfinity};
  const auto go = [&](int64_t from) {
    const Range r = descend(head, positions, from, chunk / 2, rounds - 1, index, tolerance);
    below = {std::min(below.low, r.low), std::max(below.high, r.high)};
  };
  if (a > z - tolerance) go(start);
  if (a <= z + tolerance) go(start + chunk / 2);
  return {std::max(range.low, below.low), std::max(range.high, below.high)};
}

std::vector<SearchMargins::Range> SearchMargins::scores(int list_head, int stage, std::span<const Candidate> candidates) const {
  const AttentionSetup& setup = oracle_.setup();
  const LayerPlan& layer = oracle_.layer();
  const StagePlan s = layer.stages[static_cast<size_t>(stage)].of_block(block_.rows);
  const bool all_certain = std::all_of(candidates.begin(), candidates.end(), [](const Candidate& c) { return c.certain; });
  const auto size = static_cast<int64_t>(candidates.size());
  const int64_t count = all_certain ? size : keep(stage - 1) * (layer.stages[static_cast<size_t>(stage) - 1].chunk / s.chunk);
  const int64_t window = std::max<int64_t>(0, layer.window - layer.stages.front().chunk);
  const ScanPositions positions(layer.scan, block_, count, window, setup.trained_context);
  std::vector<Head> heads;
  for (int h = 0; h < setup.kv.kv_heads; ++h) {
    if (setup.list_heads() > 1 && h != list_head) continue;
    Head head{{&block_, setup.kv, setup.heads, oracle_.layer_index(), h, pages_, &oracle_.rope()}, {}, {}};
    head.left = query_rows(head.search, q_.data(), s.query_stride, setup.plan.pool, positions, positions.two_sided() ? 1 : 0);
    head.right = query_rows(head.search, q_.data(), s.query_stride, setup.plan.pool, positions, 0);
    heads.push_back(std::move(head));
  }
  const auto score = [&](int64_t start, int64_t index, double tolerance) {
    Range best{-kInfinity, -kInfinity};
    for (const Head& head : heads) {
      const Range r = s.piece > 0 ? best_piece(head, positions, start, s, index)
                                  : descend(head, positions, start, s.chunk, s.descent_rounds(), index, tolerance);
      best = {std::max(best.low, r.low), std::max(best.high, r.high)};
    }
    return best;
  };
  double low = kInfinity, high = -kInfinity;
  for (int64_t j = 0; j < size; ++j) {
    const double x = score(candidates[static_cast<size_t>(j)].start, std::min(j, count - 1), 0).high;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  const double tolerance = score_tolerance(oracle_.paged_case()) * (high - low);
  std::vector<Range> ranges;
  int64_t certain = 0;  // before this one
  for (int64_t j = 0; j < size; ++j) {
    const int64_t first = layer.scan == Scan::chunk_indexed ? certain : j, last = j;
    Range range{kInfinity, -kInfinity};
    for (int64_t index = first; index <= last && last - first < kMostIndices; ++index) {
      const Range r = score(candidates[static_cast<size_t>(j)].start, index, 2 * tolerance);
      range = {std::min(range.low, r.low - tolerance), std::max(range.high, r.high + tolerance)};
    }
    if (last - first >= kMostIndices) range = {-kInfinity, kInfinity};
    ranges.push_back(range);
    certain += candidates[static_cast<size_t>(j)].certain ? 1 : 0;
  }
  return ranges;
}

std::vector<Candidate> SearchMargins::survivors(int list_head, int stage, std::vector<Candidate> candidates, int64_t w0) const {
  const auto keep = static_cast<size_t>(this->keep(stage));
  const bool last = static_cast<size_t>(stage) + 1 == oracle_.layer().stages.size();
  const auto in_time = [&](const Candidate& c) { return !last || c.start < w0; };
  if (static_cast<size_t>(std::count_if(candidates.begin(), candidates.end(), in_time)) <= keep) {
    std::erase_if(candidates, [&](const Candidate& c) { return !in_time(c); });
    return candidates;
  }
  const std::vector<Range> range = scores(list_head, stage, candidates);
  std::vector<Candidate> survivors;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!in_time(candidates[i])) continue;
    size_t can_be_better = 0, must_be_better = 0;
    for (size_t j = 0; j < candidates.size(); ++j) {
      if (j == i || !in_time(candidates[j])) continue;
      can_be_better += range[j].high >= range[i].low ? 1 : 0;
      must_be_better += candidates[j].certain && range[j].low > range[i].high ? 1 : 0;
    }
    if (must_be_better >= keep) continue;
    survivors.push_back({candidates[i].start, candidates[i].certain && can_be_better < keep});
  }
  return survivors;
}

std::vector<Candidate> SearchMargins::selected(int list_head, int64_t w0) const {
  const auto& stages = oracle_.layer().stages;
  std::vector<Candidate> candidates = grid(w0);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    if (stage > 0) {
      std::vector<Candidate> pieces;
      for (const Candidate& c : candidates) {
        for (int at = 0; at < stages[stage - 1].chunk; at += stages[stage].chunk) pieces.push_back({c.start + at, c.certain});
      }
      candidates = std::move(pieces);
    }
    candidates = survivors(list_head, static_cast<int>(stage), std::move(candidates), w0);
  }
  return candidates;
}

Difference compare(const Oracle& oracle, const Batch& batch, std::span<const float> q, std::span<const BlockChoice> got,
                   std::span<const BlockChoice> want) {
  Difference difference;
  for (size_t b = 0; b < want.size(); ++b) {
    for (size_t h = 0; h < want[b].starts.size(); ++h) {
      difference.lists += 1;
      std::vector<int32_t> odd;
      std::set_symmetric_difference(got[b].starts[h].begin(), got[b].starts[h].end(), want[b].starts[h].begin(), want[b].starts[h].end(),
                                    std::back_inserter(odd));
      if (odd.empty()) continue;
      difference.differing += 1;
      if (oracle.layer().mode == Mode::hip) {
        if (odd.size() <= want[b].starts[h].size() || difference.unexplained++ > 0) continue;
        difference.first = std::to_string(odd.size()) + " starts are in one of two lists of " + std::to_string(want[b].starts[h].size()) +
                           ", list " + std::to_string(h) + " of the block at " + std::to_string(want[b].r0) + "; the first is " +
                           std::to_string(odd.front());
        continue;
      }
      const std::vector<Candidate> possible = SearchMargins(oracle, batch, b, q).selected(static_cast<int>(h), want[b].w0);
      for (const int32_t start : odd) {
        const auto at = std::find_if(possible.begin(), possible.end(), [&](const Candidate& c) { return c.start == start; });
        if (at != possible.end() && !at->certain) continue;
        if (difference.unexplained++ > 0) continue;
        difference.first = "start " + std::to_string(start) + " of list " + std::to_string(h) + " of the block at " +
                           std::to_string(want[b].r0) + (at == possible.end() ? " cannot be selected" : " has to be selected");
      }
    }
  }
  return difference;
}

}  // namespace bough::test
