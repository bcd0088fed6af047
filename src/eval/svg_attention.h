// The drawing of an AttentionTrace: the attention over the text, above the axis what the context held and below it what was missed; under
// it lanes with the chunks that each stage kept, the context, and the heaviest blocks that were missed.
#pragma once

#include <string>
#include <vector>

#include "eval/attention_trace.h"

namespace bough::eval {

struct AttentionLabels {
  std::string title;
  std::string subtitle;
  std::vector<std::string> excerpts;  // of the missed blocks, in their order
};

// A whole SVG file. REQUIRES: trace.mass is not empty.
std::string draw_attention(const AttentionTrace& trace, const AttentionShares& shares, const AttentionLabels& labels);

}  // namespace bough::eval
