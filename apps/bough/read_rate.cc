#include "read_rate.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

namespace bough::cli {
namespace {

constexpr size_t total_bytes = size_t{256} << 20;
constexpr int passes = 6;

// Eight independent sums, so that the adds do not wait for each other.
uint64_t sum_of(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  }
  return std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
}

}  // namespace

double measure_read_rate(int threads) {
  const auto workers = static_cast<size_t>(std::clamp(threads, 1, 1024));
  std::vector<uint64_t> words;
  try {
    words.assign(total_bytes / sizeof(uint64_t), 1);
  } catch (const std::bad_alloc&) {
    return 0;
  }
  const size_t share = words.size() / workers;
  std::vector<uint64_t> sums(workers);
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    team.reserve(workers);
    for (size_t w = 0; w < workers; ++w) team.emplace_back([&, w] { sums[w] = sum_of(words.data() + w * share, share); });
    for (std::thread& member : team) member.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const bool right = std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == share / 8 * 8 * workers;
    if (right && seconds > 0) best = std::max(best, static_cast<double>(share * workers * sizeof(uint64_t)) / seconds);
  }
  return best;
}

}  // namespace bough::cli
