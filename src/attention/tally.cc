#include "attention/tally.h"

#include <algorithm>

namespace bough {
namespace {

// p: of groups, each shared evenly among `pieces` neighbours of unit_of. Pieces of one unit stand side by side.
void add_cubes(const float* p, std::span<const int32_t> unit_of, int pieces, std::vector<float>& units) {
  const float share = 1.0F / static_cast<float>(pieces);
  for (size_t i = 0; i < unit_of.size();) {
    const int32_t unit = unit_of[i];
    float sum = 0;
    for (; i < unit_of.size() && unit_of[i] == unit; ++i) sum += p[i / static_cast<size_t>(pieces)] * share;
    if (static_cast<size_t>(unit) < units.size()) units[static_cast<size_t>(unit)] += sum * sum * sum;
  }
}

}  // namespace

void SourceTally::add(int64_t position, const HeadShape& heads, std::span<const Context> contexts, int keys, const float* mass) {
  Part& part = position < answer_from_ ? question_ : answer_;
  part.units.resize(static_cast<size_t>(watched_from_ / kUnit));
  part.end = std::max(part.end, position + 1);
  const int64_t size = contexts[0].size();
  const int64_t groups = (size + keys - 1) / keys;
  const int piece = std::min(keys, kUnit);
  const int per_list = heads.heads / static_cast<int>(contexts.size());
  for (size_t list = 0; list < contexts.size(); ++list) {
    unit_of_.clear();
    for (int64_t rank = 0; rank < groups * keys; rank += piece) {
      unit_of_.push_back(static_cast<int32_t>(contexts[list].token(std::min(rank, size - 1)) / kUnit));
    }
    for (int head = 0; head < per_list; ++head) {
      const int64_t row = static_cast<int64_t>(list) * per_list + head;
      add_cubes(mass + row * groups, unit_of_, keys / piece, part.units);
    }
  }
}

std::vector<double> SourceTally::scores() const {
  std::vector<double> sums(static_cast<size_t>(watched_from_ / kUnit));
  const auto add_mean = [&](const Part& part, int64_t from) {
    for (size_t unit = 0; unit < part.units.size(); ++unit) sums[unit] += double{part.units[unit]} / static_cast<double>(part.end - from);
  };
  add_mean(question_, watched_from_);
  add_mean(answer_, answer_from_);
  return sums;
}

}  // namespace bough
