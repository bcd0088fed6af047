// AttentionPlan: the fit to a trained context.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/plans.h"

namespace bough {
namespace {

using test::plan_of;
using testing::AllOf;
using testing::HasSubstr;

TEST(PlanFit, UnchangedWhereItFits) {
  for (const std::string& name : preset_names()) {
    const auto fitted = fit_plan(plan_of(name), 5448, true);
    ASSERT_TRUE(fitted.ok()) << name;
    EXPECT_EQ(fitted->plan, plan_of(name));
    EXPECT_EQ(fitted->note, "");
  }
  EXPECT_TRUE(fit_plan(plan_of("dense"), 1, true).ok());
}

TEST(PlanFit, PresetIsCutToTheLargestThatFits) {
  const auto first_only = fit_plan(plan_of("default"), 5443, false);
  ASSERT_TRUE(first_only.ok());
  EXPECT_EQ(first_only->plan.k, 512);
  EXPECT_EQ(first_only->plan.first->k, 4088);
  EXPECT_EQ(first_only->note, "k of the first 3 layers was cut from 4096 to 4088 because the model was trained on 5443 tokens");
  const auto both = fit_plan(plan_of("3k"), 2048, false);
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->plan.k, 696);
  EXPECT_EQ(both->plan.first->k, 696);
  EXPECT_EQ(both->plan.window, 1024);
  EXPECT_THAT(both->note, HasSubstr("k was cut from 2048 to 696, k of the first 3 layers was cut from 4096 to 696 because"));
  const auto window = fit_plan(plan_of("3k"), 1024, false);
  ASSERT_TRUE(window.ok());
  EXPECT_EQ(window->plan.window, 512);
  EXPECT_EQ(window->plan.k, 184);
  EXPECT_THAT(window->note, HasSubstr("window was cut from 1024 to 512"));
}

TEST(PlanFit, EveryCutIsValidAndFits) {
  for (const std::string& name : preset_names()) {
    bool fitted_before = false;
    for (int64_t trained = 1; trained < 6000; ++trained) {
      const auto fitted = fit_plan(plan_of(name), trained, false);
      ASSERT_TRUE(fitted.ok() || !fitted_before) << name << " fits a shorter context than " << trained;
      if (!fitted.ok()) {
        EXPECT_THAT(fitted.status().message(), HasSubstr("trained on " + std::to_string(trained) + " tokens"));
        continue;
      }
      fitted_before = true;
      EXPECT_TRUE(validate_plan(fitted->plan).ok()) << validate_plan(fitted->plan).message();
      EXPECT_LE(fitted->plan.context_tokens(), trained);
      EXPECT_EQ(fitted->note.empty(), fitted->plan == plan_of(name));
    }
    EXPECT_TRUE(fitted_before) << name;
  }
}

TEST(PlanFit, RefusesWithBothNumbers) {
  const auto explicit_plan = fit_plan(plan_of("default"), 4096, true);
  ASSERT_FALSE(explicit_plan.ok());
  EXPECT_EQ(explicit_plan.status().code(), Code::invalid_argument);
  EXPECT_THAT(explicit_plan.status().message(), AllOf(HasSubstr("5444"), HasSubstr("trained on 4096 tokens")));
  EXPECT_THAT(fit_plan(plan_of("default"), 300, false).status().message(), AllOf(HasSubstr("5444"), HasSubstr("300")));
  EXPECT_THAT(fit_plan(plan_of("default"), 0, false).status().message(), HasSubstr("the trained context is 0"));
  AttentionPlan invalid = plan_of("default");
  invalid.k = 7;
  EXPECT_THAT(fit_plan(invalid, 8192, false).status().message(), HasSubstr("k is 7"));
}

TEST(PlanFit, ATreeIsCutAndLayersAreNot) {
  const auto tree = fit_plan(plan_of("hip"), 800, false);
  ASSERT_TRUE(tree.ok());
  EXPECT_EQ(tree->plan.tree->k, 800 - 64 - 256 - 64 - 8);
  EXPECT_EQ(tree->note, "k was cut from 512 to 408 because the model was trained on 800 tokens");
  const AttentionPlan wide = plan_of(R"({"layers":[{"layers":[7],"k":8192}]})");
  EXPECT_TRUE(fit_plan(wide, 9540, false).ok());
  for (const bool explicit_plan : {false, true}) {
    EXPECT_THAT(fit_plan(wide, 9539, explicit_plan).status().message(), AllOf(HasSubstr("9540"), HasSubstr("k 8192"), HasSubstr("9539")));
  }
}

TEST(PlanFit, BreakEvenIsThatOfTheNextOlderDeviceInTheTable) {
  EXPECT_EQ(break_even_tokens(9, 0), 5120);
  EXPECT_EQ(break_even_tokens(9, 5), 5120);
  EXPECT_EQ(break_even_tokens(8, 7), break_even_tokens(8, 6));
  EXPECT_EQ(break_even_tokens(12, 0), break_even_tokens(10, 0));
  EXPECT_EQ(break_even_tokens(7, 5), break_even_tokens(8, 0));
  AttentionPlan p = plan_of("default");
  p.dense_below = break_even_tokens(9, 0);
  EXPECT_TRUE(fit_plan(p, 8192, true).ok());
}

TEST(PlanFit, DenseBelowStaysInsideTheTrainedContext) {
  AttentionPlan p = plan_of("default");
  p.dense_below = 8193;
  EXPECT_THAT(fit_plan(p, 8192, true).status().message(), HasSubstr("dense_below is 8193, must be at most the trained context 8192"));
  const auto cut = fit_plan(p, 8192, false);
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->plan.dense_below, 8192);
  EXPECT_EQ(cut->note, "dense_below was cut from 8193 to 8192 because the model was trained on 8192 tokens");
}

}  // namespace
}  // namespace bough
