// Passages of the text from what its units of 8 tokens have got in a SourceTally.
#pragma once

#include <span>
#include <vector>

#include "bough/engine.h"

namespace bough {

// scores: of the units from token 0 on. Units that are only partly in the range are shared with text outside it, and the first one of
// all holds the token that heads rest on: they count for nothing, but a passage that touches them takes their tokens in. A range
// without a whole unit is one passage. REQUIRES: count >= 1, 0 <= first_token, end_token < 8 (scores.size() + 1).
std::vector<Source> find_sources(std::span<const double> scores, const SourceOptions& options);

}  // namespace bough
