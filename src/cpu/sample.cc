#include "steps/sample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "cpu/model_bodies.h"

namespace bough::cpu {
namespace {

struct Item {
  TokenId token;
  double weight;  // relative to the likeliest
};

// The highest logit; -inf when one of them is NaN or +inf.
float highest(std::span<const float> logits) {
  constexpr size_t lanes = 16;
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  std::array<float, lanes> best;
  std::array<int, lanes> bad{};
  best.fill(lowest);
  const size_t whole = logits.size() / lanes * lanes;
  for (size_t i = 0; i < whole; i += lanes) {
    for (size_t j = 0; j < lanes; ++j) {
      const float x = logits[i + j];
      best[j] = x > best[j] ? x : best[j];
      bad[j] |= static_cast<int>(!(x <= std::numeric_limits<float>::max()));
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) {
    best[0] = std::max(best[0], logits[i]);
    bad[0] |= static_cast<int>(!(logits[i] <= std::numeric_limits<float>::max()));
  }
  const bool any_bad = std::any_of(bad.begin(), bad.end(), [](int b) { return b != 0; });
  return any_bad ? lowest : *std::max_element(best.begin(), best.end());
}

// Draws of one token share their room.
struct Room {
  std::vector<double> weights;
  std::vector<TokenId> order;
  std::vector<Item> items;
};

class Draw {
 public:
  Draw(const SampleArgs& args, float best, Room& room)
      : a_(args), logits_(args.logits, static_cast<size_t>(args.vocab)), best_(best), s_(room) {}

  TokenId run() {
    const bool cut = a_.top_k > 0 && a_.top_k < a_.vocab;
    if (!cut && a_.top_p == 1) return draw_among_all();
    s_.items.clear();
    if (cut) {
      top({logits_, a_.top_k, &s_.order});
      for (const TokenId token : s_.order) s_.items.push_back({token, weight_of(token)});
      if (a_.top_p < 1) keep_top_p();
    } else {
      gather_top_p(a_.top_p * weigh_all());
    }
    std::erase_if(s_.items, [&](const Item& item) { return item.weight < a_.min_p; });
    const TokenId likeliest = s_.items[0].token;
    sort_by_id(s_.items);
    double total = 0;
    for (const Item& item : s_.items) total += item.weight;
    const double target = uniform_draw(a_.seed, a_.step) * total;
    double below = 0;
    for (const Item& item : s_.items) {
      below += item.weight;
      if (below > target) return item.token;
    }
    return likeliest;  // the product may round up to the total
  }

 private:
  static void sort_by_id(std::vector<Item>& items) {
    std::sort(items.begin(), items.end(), [](const Item& x, const Item& y) { return x.token < y.token; });
  }
  double weight_of(TokenId token) const {
    return std::exp((logits_[static_cast<size_t>(token)] - static_cast<double>(best_)) / a_.temperature);
  }

  // Fills weights; their sum.
  double weigh_all() {
    s_.weights.resize(logits_.size());
    double total = 0;
    for (size_t i = 0; i < logits_.size(); ++i) total += s_.weights[i] = weight_of(static_cast<TokenId>(i));
    return total;
  }

  TokenId draw_among_all() {
    double total = weigh_all();
    if (a_.min_p > 0) {
      total = 0;
      for (double& weight : s_.weights) total += weight = weight < a_.min_p ? 0 : weight;
    }
    const double target = uniform_draw(a_.seed, a_.step) * total;
    double below = 0;
    for (size_t i = 0; i < s_.weights.size(); ++i) {
      below += s_.weights[i];
      if (below > target) return static_cast<TokenId>(i);
    }
    return static_cast<TokenId>(std::find(logits_.begin(), logits_.end(), best_) - logits_.begin());
  }

  // items: likeliest first, all of top_k's.
  void keep_top_p() {
    std::vector<Item> by_id = s_.items;
    sort_by_id(by_id);
    double total = 0;
    for (const Item& item : by_id) total += item.weight;
    double sum = 0;
    size_t kept = 0;
    while (kept < s_.items.size() && sum < a_.top_p * total) sum += s_.items[kept++].weight;
    s_.items.resize(std::max<size_t>(kept, 1));
  }

  // Likeliest first until their weights reach `enough`: sorts a few first, most often they suffice.
  void gather_top_p(double enough) {
    for (int64_t count = 256;; count *= 16) {
      top({logits_, count, &s_.order});
      s_.items.clear();
      double sum = 0;
      for (const TokenId token : s_.order) {
        if (!s_.items.empty() && sum >= enough) return;
        const double weight = s_.weights[static_cast<size_t>(token)];
        s_.items.push_back({token, weight});
        sum += weight;
      }
      if (sum >= enough || count >= a_.vocab) return;
    }
  }

  const SampleArgs& a_;
  std::span<const float> logits_;
  float best_;
  Room& s_;
};

}  // namespace

Result<TokenId> sample(const SampleArgs& a) {
  BOUGH_RETURN_IF_ERROR(check_sampling(a));
  const std::span<const float> logits(a.logits, static_cast<size_t>(a.vocab));
  const float best = highest(logits);
  if (std::isinf(best)) {
    BOUGH_RETURN_IF_ERROR(check_logits(logits));
  }
  if (a.temperature == 0) return static_cast<TokenId>(std::find(logits.begin(), logits.end(), best) - logits.begin());
  static thread_local Room room;
  return Draw(a, best, room).run();
}

}  // namespace bough::cpu
