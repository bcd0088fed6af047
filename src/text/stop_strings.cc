#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace bough {

Status check_stop_strings(const std::vector<std::string>& strings) {
  if (strings.size() > kMaxStopStrings) {
    return {Code::invalid_argument,
            std::to_string(strings.size()) + " stop strings are more than the " + std::to_string(kMaxStopStrings) + " of one answer"};
  }
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::string which = "stop string " + std::to_string(i + 1);
    if (strings[i].empty()) return {Code::invalid_argument, which + " is empty"};
    if (strings[i].size() > kMaxStopBytes) {
      return {Code::invalid_argument,
              which + " has " + std::to_string(strings[i].size()) + " bytes, more than " + std::to_string(kMaxStopBytes)};
    }
    if (!is_utf8(strings[i])) return {Code::invalid_argument, which + " is not UTF-8"};
  }
  return {};
}

size_t StopStrings::match_ending_at(size_t end) const {
  std::string_view held = held_;
  held = held.substr(0, end);
  size_t longest = 0;
  for (const std::string& stop : strings_) {
    if (stop.size() > longest && held.ends_with(stop)) longest = stop.size();
  }
  return longest;
}

size_t StopStrings::held_bytes() const {
  const std::string_view held = held_;
  size_t longest = 0;
  for (const std::string& stop : strings_) {
    const std::string_view start = stop;
    for (size_t bytes = std::min(stop.size() - 1, held_.size()); bytes > longest; --bytes) {
      if (held.ends_with(start.substr(0, bytes))) longest = bytes;
    }
  }
  return longest;
}

std::string StopStrings::push(std::string_view text) {
  if (found_) return {};
  const size_t fresh = held_.size();
  held_ += text;
  for (size_t end = fresh + 1; end <= held_.size(); ++end) {
    if (const size_t bytes = match_ending_at(end); bytes > 0) {
      found_ = true;
      held_.resize(end - bytes);
      return std::exchange(held_, {});
    }
  }
  const size_t keep = held_bytes();
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopStrings::flush() { return std::exchange(held_, {}); }

}  // namespace bough
