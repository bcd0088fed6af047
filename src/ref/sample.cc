#include "steps/sample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "ref/model_bodies.h"

namespace bough::ref {
namespace {

struct Item {
  TokenId token;
  double weight;  // relative to the likeliest
};

double total_by_id(std::vector<Item> items) {
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.token < b.token; });
  double total = 0;
  for (const Item& item : items) total += item.weight;
  return total;
}

// `items`: likeliest first.
void keep_top_p(std::vector<Item>& items, double top_p) {
  const double enough = top_p * total_by_id(items);
  double sum = 0;
  size_t kept = 0;
  while (kept < items.size() && sum < enough) sum += items[kept++].weight;
  items.resize(std::max<size_t>(kept, 1));
}

}  // namespace

Result<TokenId> sample(const SampleArgs& a) {
  BOUGH_RETURN_IF_ERROR(check_sampling(a));
  const std::span<const float> logits(a.logits, static_cast<size_t>(a.vocab));
  BOUGH_RETURN_IF_ERROR(check_logits(logits));
  std::vector<TokenId> order;
  top({logits, a.vocab, &order});
  if (a.temperature == 0) return order[0];

  const double best = logits[static_cast<size_t>(order[0])];
  std::vector<Item> items;
  items.reserve(order.size());
  for (const TokenId token : order) items.push_back({token, std::exp((logits[static_cast<size_t>(token)] - best) / a.temperature)});
  if (a.top_k > 0 && a.top_k < a.vocab) items.resize(static_cast<size_t>(a.top_k));
  if (a.top_p < 1) keep_top_p(items, a.top_p);
  std::erase_if(items, [&](const Item& item) { return item.weight < a.min_p; });
  std::sort(items.begin(), items.end(), [](const Item& x, const Item& y) { return x.token < y.token; });
  const double target = uniform_draw(a.seed, a.step) * total_by_id(items);
  double below = 0;
  for (const Item& item : items) {
    below += item.weight;
    if (below > target) return item.token;
  }
  return order[0];  // the product may round up to the total
}

}  // namespace bough::ref
