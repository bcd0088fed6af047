// The child's side of child.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "bough/status.h"
#include "text/child.h"

namespace bough {

// What every message starts with; `bytes` of text follow.
struct ChildHeader {
  uint32_t mark = kMark;
  Code code = Code::ok;
  uint64_t bytes = 0;

  static constexpr uint32_t kMark = 0x42474832;
};

// Keeps only `socket`, takes on the limits, sends the result of `first`, then answers requests, if there is an `answer`, until the
// other end closes.
[[noreturn]] void be_child(int socket, const std::string& what, const ChildLimits& limits, const ChildFirst& first,
                           const ChildAnswer& answer);

}  // namespace bough
