// Stop strings: where an answer ends, and which of its text may already be shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough {

inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 1024;

// Errors: invalid_argument (more than 16; one that is empty, longer than 1,024 bytes or not UTF-8).
Status check_stop_strings(const std::vector<std::string>& strings);

// The text that comes out is the same however the text that goes in is cut: it ends before the stop string that is complete first, of
// several that end together before the longest. Nothing that may still become a part of a stop string comes out.
class StopStrings {
 public:
  // REQUIRES: check_stop_strings(strings).
  explicit StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {}

  // What may be shown now. After a stop string nothing more comes out.
  std::string push(std::string_view text);
  // The text ends here: what was held back.
  std::string flush();
  bool found() const { return found_; }

 private:
  size_t match_ending_at(size_t end) const;  // bytes of the longest stop string that ends there; 0: none
  size_t held_bytes() const;                 // of the longest end of held_ that starts a stop string

  std::vector<std::string> strings_;
  std::string held_;
  bool found_ = false;
};

}  // namespace bough
