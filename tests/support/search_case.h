// What searches score, by definition and in double; candidates for scans and a scan's scores.
#pragma once

#include <cstdint>
#include <vector>

#include "support/attention_case.h"

namespace bough::test {

struct SearchSpec {
  int stride = 1;
  Pool pool = Pool::mean;
  Scan scan = Scan::relative;
  int64_t window = 64;  // distance of a relative scan
  int64_t limit = 4096;
  int64_t candidates = 0;  // that chunk indices count
};

// One query block and KV head.
class SearchDefinition {
 public:
  SearchDefinition(const AttentionCase& c, const Input& input, int64_t block, int head, const SearchSpec& spec);

  // The best product of the rows with one key, which belongs to candidate j; left: of the left one of a pair.
  double best(int64_t token, int64_t j, bool left) const;
  // The same of the mean of keys [token, token + piece), which stands where the middle one does, from the right.
  double best_mean(int64_t token, int piece, int64_t j) const;

 private:
  using Rows = std::vector<std::vector<double>>;

  int64_t query_position(int64_t own, bool left) const;
  int64_t key_position(int64_t token, int64_t j) const;
  Rows pool(const Input& input, bool left) const;

  const AttentionCase& c_;
  SearchSpec spec_;
  const QueryBlock& block_;
  int head_;
  int64_t divisor_ = 1;
  int64_t base_ = 0;  // from where true positions count
  Rows left_;
  Rows right_;
};

struct ScanSpec {
  int chunk = 16;
  int64_t sinks = 0;
  bool grid = true;   // else random ascending chunks
  int64_t most = 40;  // candidates a block
  int list_heads = 1;
  int stride = 1;
  Pool pool = Pool::mean;
  Scan scan = Scan::relative;
  int64_t window = 64;  // distance of a relative scan
  int64_t limit = 4096;
  int rounds = 0;  // 0: all
  int piece = 0;   // n > 0: no descent

  int descent_rounds() const { return StagePlan{.chunk = chunk, .rounds = rounds}.descent_rounds(); }
};

// Candidates of every block; chunks reach up to its first row.
struct Grid {
  std::vector<int32_t> start;
  std::vector<int32_t> count;
  std::vector<uint8_t> active;
  ScanSpec spec;

  Candidates view() const { return {spec.grid ? nullptr : start.data(), count.data(), spec.list_heads, spec.most, spec.sinks, spec.chunk}; }
};

Grid candidates_of(const Batch& batch, const ScanSpec& spec);

// [nb, hkv, most], 7 where nothing was written.
std::vector<float> scan(const AttentionBodies& body, const AttentionCase& c, const Input& input, const Grid& grid, const RopeTable& rope,
                        const KeySummary* const* summaries = nullptr);

class ScanDefinition {
 public:
  ScanDefinition(const AttentionCase& c, const Input& input, const Grid& grid, int64_t block, int head);

  struct Score {
    double score;
    double closest;  // smallest difference that decided a turn of the descent
  };
  Score score(int64_t start, int64_t j) const;

 private:
  int chunk_;
  int rounds_;
  int piece_;
  SearchDefinition search_;
};

}  // namespace bough::test
