#include "steps/top.h"

#include <algorithm>
#include <numeric>

#include "ref/model_bodies.h"

namespace bough::ref {

void top(const TopArgs& a) {
  a.out->resize(a.logits.size());
  std::iota(a.out->begin(), a.out->end(), 0);
  std::stable_sort(a.out->begin(), a.out->end(),
                   [&](TokenId x, TokenId y) { return a.logits[static_cast<size_t>(x)] > a.logits[static_cast<size_t>(y)]; });
  a.out->resize(static_cast<size_t>(std::min(a.count, static_cast<int64_t>(a.logits.size()))));
}

}  // namespace bough::ref
