#include "engine/sources.h"

#include <algorithm>
#include <numeric>

#include "attention/tally.h"

namespace bough {
namespace {

constexpr int64_t kUnit = SourceTally::kUnit;
constexpr int64_t kWindow = 4;      // units that are found together
constexpr int64_t kLongest = 8;     // units of a passage made of neighbours
constexpr double kEdge = 1.0 / 16;  // a unit at the edge of a window stays when it has this share of the window's best unit

struct Passage {
  int64_t first = 0;  // units [first, end)
  int64_t end = 0;
  double weight = 0;
};

// The best window of at most kWindow units that are not taken; empty when all have nothing. Of equal ones the first.
Passage best_window(std::span<const double> scores, const std::vector<uint8_t>& taken) {
  Passage best;
  const auto units = static_cast<int64_t>(scores.size());
  for (int64_t first = 0; first < units; ++first) {
    Passage window{first, first, 0};
    while (window.end < std::min(units, first + kWindow) && taken[static_cast<size_t>(window.end)] == 0) {
      window.weight += scores[static_cast<size_t>(window.end++)];
    }
    if (window.weight > best.weight) best = window;
  }
  return best;
}

// Without the edges that have next to nothing.
Passage trimmed(std::span<const double> scores, Passage window) {
  const auto at = [&](int64_t unit) { return scores[static_cast<size_t>(unit)]; };
  double top = 0;
  for (int64_t u = window.first; u < window.end; ++u) top = std::max(top, at(u));
  while (at(window.first) < top * kEdge) ++window.first;
  while (at(window.end - 1) < top * kEdge) --window.end;
  return window;
}

// Joins a passage to one that it touches, if the two together are short enough.
bool join(std::vector<Passage>& passages, const Passage& fresh) {
  for (Passage& p : passages) {
    if ((p.end != fresh.first && fresh.end != p.first) || p.end - p.first + fresh.end - fresh.first > kLongest) continue;
    p = {std::min(p.first, fresh.first), std::max(p.end, fresh.end), p.weight + fresh.weight};
    return true;
  }
  return false;
}

}  // namespace

std::vector<Source> find_sources(std::span<const double> scores, const SourceOptions& options) {
  const auto units = static_cast<int64_t>(scores.size());
  const int64_t from = std::min((std::max(options.first_token, kUnit) + kUnit - 1) / kUnit, units);
  const int64_t to = std::clamp(options.end_token / kUnit, from, units);
  if (from == to) {
    if (options.end_token <= options.first_token) return {};
    return {{options.first_token, options.end_token - options.first_token, 1.0}};
  }
  scores = scores.subspan(static_cast<size_t>(from), static_cast<size_t>(to - from));
  const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
  std::vector<uint8_t> taken(scores.size());
  std::vector<Passage> passages;
  while (static_cast<int64_t>(passages.size()) < options.count) {
    const Passage window = best_window(scores, taken);
    if (window.first == window.end) break;
    std::fill(taken.begin() + window.first, taken.begin() + window.end, uint8_t{1});
    const Passage found = trimmed(scores, window);
    if (!join(passages, found)) passages.push_back(found);
  }
  std::stable_sort(passages.begin(), passages.end(), [](const Passage& a, const Passage& b) { return a.weight > b.weight; });
  std::vector<Source> sources;
  for (const Passage& p : passages) {
    const int64_t first = p.first == 0 ? options.first_token : (from + p.first) * kUnit;
    const int64_t end = from + p.end == to ? options.end_token : (from + p.end) * kUnit;
    sources.push_back({first, end - first, p.weight / total});
  }
  return sources;
}

}  // namespace bough
