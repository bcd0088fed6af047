#include "support/plans.h"

#include <gtest/gtest.h>

namespace bough::test {

AttentionPlan plan_of(std::string_view spec) {
  const Result<AttentionPlan> plan = parse_plan(spec);
  EXPECT_TRUE(plan.ok()) << spec << ": " << plan.status().message();
  return plan.ok() ? *plan : AttentionPlan{};
}

std::string plan_error(std::string_view spec, Code code) {
  const Result<AttentionPlan> plan = parse_plan(spec);
  if (plan.ok()) return "accepted";
  EXPECT_EQ(code_name(plan.status().code()), code_name(code)) << plan.status().message();
  return plan.status().message();
}

}  // namespace bough::test
