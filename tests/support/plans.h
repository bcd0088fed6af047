// Attention plans from text, for tests.
#pragma once

#include <string>
#include <string_view>

#include "bough/attention.h"

namespace bough::test {

// The plan that parse_plan makes of `spec`. A spec that it refuses fails the test.
AttentionPlan plan_of(std::string_view spec);

// What parse_plan says about a spec that it refuses, "accepted" where it does not. Another code fails the test.
std::string plan_error(std::string_view spec, Code code = Code::invalid_argument);

}  // namespace bough::test
