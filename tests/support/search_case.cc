#include "support/search_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steps/convert.h"

namespace bough::test {

SearchDefinition::SearchDefinition(const AttentionCase& c, const Input& input, int64_t block, int head, const SearchSpec& spec)
    : c_(c), spec_(spec), block_(input.batch.blocks[static_cast<size_t>(block)]), head_(head) {
  while ((spec_.candidates + divisor_ - 1) / divisor_ + spec_.window >= spec_.limit) ++divisor_;
  base_ = std::max<int64_t>(0, block_.r1() - spec_.limit);
  left_ = pool(input, true);
  right_ = pool(input, false);
}

int64_t SearchDefinition::query_position(int64_t own, bool left) const {
  switch (spec_.scan) {
    case Scan::relative: return spec_.window + (left ? 1 : 0);
    case Scan::chunk_indexed: return std::min(block_.r0, (spec_.candidates + divisor_ - 1) / divisor_ + spec_.window);
    case Scan::infllm: return spec_.window;
    default: return own - base_;
  }
}

int64_t SearchDefinition::key_position(int64_t token, int64_t j) const {
  if (spec_.scan == Scan::relative || spec_.scan == Scan::infllm) return 0;
  if (spec_.scan == Scan::chunk_indexed) return j / divisor_;
  const auto first = static_cast<double>(block_.r0), trained = static_cast<double>(spec_.limit), key = static_cast<double>(token);
  double at = key;
  if (spec_.scan == Scan::dynamic_extend && base_ > 0 && token < block_.r1() - spec_.limit / 4) {
    const double near = std::floor(trained / 4);
    const double edge = first - near;
    at = edge + std::trunc((key - edge) * (trained - near) / edge);
  }
  if (spec_.scan == Scan::self_extend && token < base_) {
    at = first + std::floor((key - first) / std::ceil(static_cast<double>(block_.r1()) / trained));
  }
  return std::max<int64_t>(0, static_cast<int64_t>(at) - base_);
}

SearchDefinition::Rows SearchDefinition::pool(const Input& input, bool left) const {
  const CaseShape& shape = c_.shape();
  const int group = shape.heads / shape.kv_heads;
  Rows rows;
  for (int g = 0; g < group; ++g) {
    std::vector<float> sum(static_cast<size_t>(shape.d));
    int members = 0;
    for (int r = 0; r < block_.rows; ++r) {
      const int64_t p = block_.r0 + r;
      const size_t at = static_cast<size_t>(((block_.row + r) * shape.heads + head_ * group + g) * shape.d);
      const bool last = spec_.pool == Pool::all || r + 1 == block_.rows || (p + 1) % spec_.stride == 0;
      if (spec_.pool == Pool::mean || last) {
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += input.q[at + i];
        ++members;
      }
      if (!last) continue;
      const int64_t position = query_position(p + 1 - members, left);
      rows.push_back(turned(sum, double{shape.head_shape().scale} / members, position, shape));
      std::fill(sum.begin(), sum.end(), 0.0F);
      members = 0;
    }
  }
  return rows;
}

double SearchDefinition::best(int64_t token, int64_t j, bool left) const {
  const auto key = turned(c_.key(block_.seq, token, head_), 1.0, key_position(token, j), c_.shape());
  double top = -INFINITY;
  for (const auto& row : left ? left_ : right_) top = std::max(top, std::inner_product(row.begin(), row.end(), key.begin(), 0.0));
  return top;
}

double SearchDefinition::best_mean(int64_t token, int piece, int64_t j) const {
  std::vector<float> sum(static_cast<size_t>(c_.shape().d));
  for (int i = 0; i < piece; ++i) {
    const std::vector<float> key = c_.key(block_.seq, token + i, head_);
    std::transform(sum.begin(), sum.end(), key.begin(), sum.begin(), std::plus<>());
  }
  for (float& x : sum) x = rounded(x / static_cast<float>(piece), c_.shape().type);
  const auto mean = turned(sum, 1.0, key_position(token + piece / 2, j), c_.shape());
  double top = -INFINITY;
  for (const auto& row : right_) top = std::max(top, std::inner_product(row.begin(), row.end(), mean.begin(), 0.0));
  return top;
}

Grid candidates_of(const Batch& batch, const ScanSpec& spec) {
  Grid grid;
  grid.spec = spec;
  for (const QueryBlock& block : batch.blocks) {
    const int64_t all = std::max<int64_t>(0, (block.r0 - spec.sinks) / spec.chunk);
    const int64_t count = std::min(all, spec.most);
    grid.count.push_back(static_cast<int32_t>(count));
    grid.active.push_back(1);
    for (int head = 0; head < spec.list_heads; ++head) {
      std::vector<int32_t> starts(static_cast<size_t>(all));
      for (size_t j = 0; j < starts.size(); ++j) starts[j] = static_cast<int32_t>(spec.sinks + static_cast<int64_t>(j) * spec.chunk);
      auto random = random_of(61, block.r0, head);
      std::shuffle(starts.begin(), starts.end(), random);
      starts.resize(static_cast<size_t>(count));
      std::sort(starts.begin(), starts.end());
      starts.resize(static_cast<size_t>(spec.most), -1);
      grid.start.insert(grid.start.end(), starts.begin(), starts.end());
    }
  }
  return grid;
}

std::vector<float> scan(const AttentionBodies& body, const AttentionCase& c, const Input& input, const Grid& grid, const RopeTable& rope,
                        const KeySummary* const* summaries) {
  std::vector<float> scores(static_cast<size_t>(input.nb() * c.shape().kv_heads * grid.spec.most), 7.0F);
  auto args = args_of<ScanArgs>(c.shape(), input.batch, input.q, rope);
  args.active = grid.active.data();
  args.candidates = grid.view();
  args.rounds = grid.spec.descent_rounds();
  args.piece = grid.spec.piece;
  args.query_stride = grid.spec.stride;
  args.pool = grid.spec.pool;
  args.scan = grid.spec.scan;
  args.scan_window = grid.spec.window;
  args.trained_context = grid.spec.limit;
  args.summaries = summaries;
  args.scores = scores.data();
  args.score_capacity = grid.spec.most;
  body.scan(args);
  return scores;
}

ScanDefinition::ScanDefinition(const AttentionCase& c, const Input& input, const Grid& grid, int64_t block, int head)
    : chunk_(grid.spec.chunk),
      rounds_(grid.spec.descent_rounds()),
      piece_(grid.spec.piece),
      search_(
          c, input, block, head,
          {grid.spec.stride, grid.spec.pool, grid.spec.scan, grid.spec.window, grid.spec.limit, grid.count[static_cast<size_t>(block)]}) {}

ScanDefinition::Score ScanDefinition::score(int64_t start, int64_t j) const {
  Score s{-INFINITY, INFINITY};
  for (int64_t at = start; piece_ > 0 && at < start + chunk_; at += piece_) s.score = std::max(s.score, search_.best_mean(at, piece_, j));
  if (piece_ > 0) return s;
  int64_t l = start;
  for (int round = 0; round < rounds_; ++round) {
    const int64_t n = chunk_ >> round;
    const double a = search_.best(l + n / 4, j, true);
    const double z = search_.best(l + n / 2 + n / 4, j, false);
    s.score = std::max({s.score, a, z});
    if (round + 1 < rounds_ && n > 1) s.closest = std::min(s.closest, std::abs(a - z));
    if (z >= a) l += n / 2;
  }
  return s;
}

}  // namespace bough::test
