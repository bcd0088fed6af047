// top: the highest of a row of logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bough/types.h"

namespace bough {

struct TopArgs {
  std::span<const float> logits;        // no NaN
  int64_t count = 0;                    // at least 0; more than there are: all
  std::vector<TokenId>* out = nullptr;  // min(count, logits) ids, highest first, of equal ones the lower id first
};

}  // namespace bough
