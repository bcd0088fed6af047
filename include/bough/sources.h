// The passages of a text that an answer drew on: what Session::sources is asked and what it gives.
#pragma once

#include <cstdint>

namespace bough {

struct SourceOptions {
  int64_t first_token = 0;        // of the text in which passages are looked for
  int64_t end_token = INT64_MAX;  // after its last token
  int count = 3;                  // passages at most, 1 to 1000
};

// A passage that an answer drew on.
struct Source {
  int64_t first_token = 0;  // in the session
  int64_t tokens = 0;
  double weight = 0;  // share of what was looked at in the whole text, 0..1
};

}  // namespace bough
