// AttentionPlan: layers by name, trees, and what no body does yet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/plans.h"

namespace bough {
namespace {

using test::plan_error;
using test::plan_of;
using testing::HasSubstr;

// Layers by name: each takes what it leaves out from the plan.
TEST(PlanLayers, ResolveToOnePlanEach) {
  const AttentionPlan p =
      plan_of(R"({"layers":[{"layers":[0,4],"mode":"dense"},{"layers":[1],"k":1024,"scan":"relative","positions":"true"},)"
              R"({"layers":[5],"mode":"hip","window":512,"tree":{"key_block":4}},{"layers":[6],"mode":"hip","k":64},)"
              R"({"layers":[7],"mode":"streaming","sinks":64},)"
              R"({"layers":[8],"stages":[{"chunk":32},{"chunk":16,"keep":8192},{"chunk":4,"keep":4096}]}]})");
  const AttentionPlan base = plan_of("default");
  for (const int dense : {0, 4}) EXPECT_EQ(p.layer(dense), LayerPlan{}) << dense;
  EXPECT_EQ(p.layer(1).k, 1024);
  EXPECT_EQ(p.layer(1).scan, Scan::relative);
  EXPECT_EQ(p.layer(1).positions, Positions::true_positions);
  EXPECT_EQ(p.layer(1).stages, base.stages);
  EXPECT_EQ(p.layer(2), base.layer(2)) << "first is left as it was";
  EXPECT_EQ(p.layer(3), base.layer(3));
  EXPECT_EQ(p.layer(1000), base.layer(3));
  EXPECT_EQ(p.layer(5).k, 512) << "a tree's own k";
  EXPECT_EQ(p.layer(5).last_chunk(), 4);
  EXPECT_EQ(p.layer(5).window, 512);
  EXPECT_EQ(p.layer(5).sinks, 256);
  EXPECT_EQ(p.layer(5).refresh, std::vector<int>{8});
  EXPECT_TRUE(p.layer(5).stages.empty());
  EXPECT_EQ(p.layer(6).k, 64);
  EXPECT_EQ(p.layer(6).tree.k, 64);
  EXPECT_EQ(p.layer(7).refresh, std::vector<int>{4}) << "the last stage's interval";
  EXPECT_EQ(p.layer(7).context_tokens(), 64 + 1024 + 64 + 4);
  EXPECT_EQ(p.layer(7).k, 0);
  EXPECT_EQ(p.layer(8).last_chunk(), 4);
  EXPECT_EQ(p.layer(8).k, base.k);
  EXPECT_EQ(p.context_tokens(), base.context_tokens());
  EXPECT_EQ(p.distinct_layers().size(), 8u);
  EXPECT_EQ(plan_of(plan_json(p)), p);
}

TEST(PlanLayers, APlanMayBeDenseButForSomeLayers) {
  const AttentionPlan p =
      plan_of(R"({"mode":"dense","tail":8,"layers":[{"layers":[2],"mode":"hip","sinks":0,"window":128,"k":32,"positions":"rank"}]})");
  EXPECT_EQ(p.layer(0).mode, Mode::dense);
  EXPECT_EQ(p.layer(2).context_tokens(), 128 + 32 + 64 + 8);
  EXPECT_EQ(p.context_tokens(), p.layer(2).context_tokens());
  EXPECT_EQ(p.query_block(), 64);
  EXPECT_EQ(plan_of(plan_json(p)), p);
}

TEST(PlanLayers, Rules) {
  const auto error = [](const std::string& entries) { return plan_error(R"({"layers":[)" + entries + "]}"); };
  EXPECT_THAT(error(R"({"mode":"dense"})"), HasSubstr("layers[0].layers is missing"));
  EXPECT_THAT(error(R"({"layers":[]})"), HasSubstr("layers[0].layers is empty"));
  EXPECT_THAT(error(R"({"layers":[1024]})"), HasSubstr("layers[0].layers[0] is 1024, must be an integer from 0 to 1023"));
  EXPECT_THAT(error(R"({"layers":[-1]})"), HasSubstr("layers[0].layers[0] is -1"));
  EXPECT_THAT(error(R"({"layers":[2,1]})"), HasSubstr("layers[0].layers[1] is 1, must be above the one before it, 2"));
  EXPECT_THAT(error(R"({"layers":[1,2]},{"layers":[2]})"),
              HasSubstr("layers[1].layers[0] is 2, must be a layer that no other entry names"));
  EXPECT_THAT(error(R"({"layers":[3],"refresh":[4]})"), HasSubstr("unknown key \"refresh\" in layers[0]"));
  EXPECT_THAT(error(R"({"layers":[3],"mode":"dense","k":8})"), HasSubstr("layers[0].k is set, but mode dense does not use it"));
  EXPECT_THAT(error(R"({"layers":[3],"tree":{}})"), HasSubstr("layers[0].tree is set, but mode stages does not use it"));
  EXPECT_THAT(error(R"({"layers":[3],"mode":"streaming","scan":"relative"})"), HasSubstr("layers[0].scan is set"));
  EXPECT_THAT(error(R"({"layers":[3],"k":2044})"), HasSubstr("layers[0].k is 2044, must be a multiple of the last chunk 8"));
  EXPECT_THAT(error(R"({"layers":[3],"k":16384})"), HasSubstr("layers[0].stages[2].keep is 8192, must be at least layers[0].k 16384"));
  EXPECT_THAT(error(R"({"layers":[3],"window":64})"),
              HasSubstr("layers[0].window is 64, must be at least twice layers[0].stages[0].chunk, 128"));
  EXPECT_THAT(error(R"({"layers":[3],"sinks":8})"), HasSubstr("layers[0].sinks is 8, must be a multiple of the page size 64"));
  EXPECT_THAT(error(R"({"layers":[3],"stages":[{"chunk":64}]})"),
              HasSubstr("refresh has 3 intervals, must have as many as layers[0].stages, 1"));
  EXPECT_THAT(error(R"({"layers":[3],"mode":"hip","tree":{"query_block":32}})"),
              HasSubstr("layers[0].tree.query_block is 32, must be that of the first stage or tree, 64"));
  EXPECT_THAT(error(R"({"layers":[3],"mode":"streaming","window":1000})"), HasSubstr("accepted"));
  EXPECT_THAT(plan_error(R"({"layers":[3]})"), HasSubstr("layers[0] is 3, must be an object"));
}

TEST(PlanRules, Tree) {
  const auto error = [](const std::string& tree) { return plan_error(R"({"mode":"hip","tree":{)" + tree + "}}"); };
  EXPECT_THAT(error(R"("key_block":3)"), HasSubstr("tree.key_block is 3, must be a power of two from 1 to 64"));
  EXPECT_THAT(error(R"("key_block":128)"), HasSubstr("tree.key_block is 128, must be an integer from 1 to 64"));
  EXPECT_THAT(error(R"("key_stride":3)"), HasSubstr("tree.key_stride is 3, must be a divisor of key_block 2"));
  EXPECT_THAT(error(R"("query_block":1)"), HasSubstr("tree.query_block is 1, must be 16, 32 or 64"));
  EXPECT_THAT(error(R"("query_stride":5)"), HasSubstr("tree.query_stride is 5, must be a divisor of query_block 64"));
  EXPECT_THAT(error(R"("k":0)"), HasSubstr("tree.k is 0, must be from 2"));
  EXPECT_THAT(error(R"("k":511)"), HasSubstr("tree.k is 511, must be a multiple of key_block 2"));
  EXPECT_THAT(error(R"("rep":"random")"), HasSubstr("tree.rep is \"random\", must be one of the strings center, first, last"));
  EXPECT_THAT(error(R"("refresh":0)"), HasSubstr("tree.refresh is 0"));
  EXPECT_THAT(error(R"("refresh":257)"), HasSubstr("tree.refresh is 257, must be at most window 256"));
  EXPECT_THAT(plan_error(R"({"mode":"hip","k":512})"), HasSubstr("k is 512, must be 0 in mode hip, whose k is tree.k"));
  EXPECT_THAT(plan_error(R"({"mode":"hip","refresh":[8]})"), HasSubstr("but mode hip has none, its interval is tree.refresh"));
  EXPECT_THAT(plan_error(R"({"mode":"hip","window":255})"), HasSubstr("window is 255, must be a multiple of tree.key_block 2"));
  EXPECT_THAT(plan_error(R"({"tree":{}})"), HasSubstr("tree is set, but mode stages has none"));
  EXPECT_THAT(plan_error(R"({"mode":"dense","positions":"true"})"), HasSubstr("in mode dense every position is true"));
  const AttentionPlan every =
      plan_of(R"({"mode":"hip","tree":{"k":64,"query_block":16,"query_stride":4,"key_block":8,"key_stride":4,"rep":"last","refresh":3}})");
  EXPECT_EQ(*every.tree, (TreePlan{64, 16, 4, 8, 4, Representative::last, 3}));
  EXPECT_EQ(every.query_block(), 16);
  EXPECT_EQ(plan_of(plan_json(every)), every);
}

}  // namespace
}  // namespace bough
