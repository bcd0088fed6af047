// The configuration format of InfiniteHiP's authors: what it becomes, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "support/plans.h"

namespace bough {
namespace {

using test::plan_error;
using test::plan_of;
using testing::AllOf;
using testing::HasSubstr;

std::string stage(int chunk, const std::string& keep, const std::string& more = "") {
  return R"({"stage_block_size_q":64,"stage_block_stride_q":4,"stage_chunk_size":)" + std::to_string(chunk) + R"(,"stage_k":)" + keep +
         R"(,"stage_stride":1)" + more + "}";
}

// Their defaults: the chunks and keeps of 3k, config #0 for layers 0 to 3 and 31.
AttentionPlan defaults() {
  AttentionPlan p = *parse_plan("3k-fast");
  p.first.reset();
  p.positions = Positions::streaming;
  LayerOverride special;
  special.layers = {0, 1, 2, 3, 31};
  special.k = 4096;
  special.scan = Scan::chunk_indexed;
  p.layers = {special};
  return p;
}

TEST(AuthorsJson, OneKeyAloneIsTheirDefaults) {
  AttentionPlan flash = defaults();
  flash.refresh = {96, 24, 8};
  EXPECT_EQ(plan_of(R"({"mask_refresh_interval":[96,24,8]})"), flash);
  EXPECT_EQ(plan_of(R"({"using_extend":true})"), defaults());
  EXPECT_EQ(plan_of(R"({"metadata_cache_max_batch_size":32})"), defaults());
  AttentionPlan every_eight = defaults();
  every_eight.refresh = {8, 8, 8};
  EXPECT_EQ(plan_of(R"({"mask_refresh_interval":8})"), every_eight);
}

TEST(AuthorsJson, SpecialLayersAreNotDense) {
  const AttentionPlan p = plan_of(R"({"dense_layers":[2,0]})");
  EXPECT_EQ(p.layer(0).mode, Mode::stages);
  EXPECT_EQ(p.layer(0).k, 4096);
  EXPECT_EQ(p.layer(0).scan, Scan::chunk_indexed);
  EXPECT_EQ(p.layer(1).k, 2048);
  EXPECT_EQ(p.layer(1).scan, Scan::relative);
  EXPECT_EQ(p.layer(2), p.layer(0));
  EXPECT_TRUE(plan_of(R"({"dense_layers":[]})").layers.empty());
}

TEST(AuthorsJson, EverythingSpelledOut) {
  const std::string stages = "[" + stage(64, "null") + "," + stage(32, "16384", R"(,"post_sort":true,"reset_score":true)") + "]";
  const std::string layer = R"("sliding_window_size":512,"sink_token_size":128,"sa_extend_backend":"infllm","stages":)" + stages + "}";
  const std::string layers = R"([{"second_stage_k":8192,"scan_extend_backend":"streaming",)" + layer +
                             R"(,{"second_stage_k":1024,"scan_extend_backend":"dynamic_extend",)" + layer + "]";
  const AttentionPlan p = plan_of(R"({"dense_layers":[0,1,2],"mask_refresh_interval":[16,4],"using_extend":true,"apply_v_dot":false,)"
                                  R"("block_sparse_block_size_q":64,"prefill_dense_threshold":8192,"layers":)" +
                                  layers + R"(,"prefill_layers":)" + layers + "}");
  AttentionPlan want = *parse_plan(
      R"({"sinks":128,"window":512,"k":1024,"row_k":0,"first":null,"scan":"dynamic-extend","positions":"infllm","refresh":[16,4],)"
      R"("stages":[{"chunk":64,"query_stride":4},{"chunk":32,"keep":16384,"query_stride":4}],)"
      R"("layers":[{"layers":[0,1,2],"k":8192,"scan":"chunk-indexed"}]})");
  EXPECT_EQ(p, want);
  EXPECT_EQ(plan_of(plan_json(p)), p) << "and prints as a plan of this project";
}

TEST(AuthorsJson, OneEntryALayer) {
  const AttentionPlan p =
      plan_of(R"({"dense_layers":[1],"layers":[{"second_stage_k":4096},{},{"sliding_window_size":2048},{"second_stage_k":4096},{}]})");
  EXPECT_EQ(p.layer(0).k, 4096);
  EXPECT_EQ(p.layer(0).scan, Scan::relative);
  EXPECT_EQ(p.layer(1).k, 2048);
  EXPECT_EQ(p.layer(1).scan, Scan::chunk_indexed);
  EXPECT_EQ(p.layer(2).window, 2048);
  EXPECT_EQ(p.layer(3), p.layer(0));
  EXPECT_EQ(p.layer(4), p.layer(40));
  EXPECT_EQ(p.layers.size(), 3u) << "layers 0 and 3 are alike";
  const AttentionPlan one = plan_of(R"({"dense_layers":[],"layers":[{"second_stage_k":512}]})");
  EXPECT_EQ(one.layer(0).k, 512);
  EXPECT_TRUE(one.layers.empty());
}

TEST(AuthorsJson, WithoutExtensionPositionsAreTrue) {
  const AttentionPlan p = plan_of(R"({"using_extend":false})");
  for (const int layer : {0, 5}) {
    EXPECT_EQ(p.layer(layer).positions, Positions::true_positions);
    EXPECT_EQ(p.layer(layer).scan, Scan::dynamic_extend);
  }
  EXPECT_EQ(p.layer(0).k, 4096);
}

TEST(AuthorsJson, AStagesOwnBackend) {
  const auto with = [](const std::string& first, const std::string& second) {
    return R"({"dense_layers":[],"mask_refresh_interval":[8,4],"layers":[{"stages":[)" + stage(64, "null", first) + "," +
           stage(32, "4096", second) + "]}]}";
  };
  const std::string infllm = R"(,"stage_extend_backend":"infllm")";
  EXPECT_EQ(plan_of(with(infllm, infllm)).layer(9).scan, Scan::infllm);
  EXPECT_EQ(plan_of(with(R"(,"stage_extend_backend":null)", R"(,"stage_extend_backend":"relative")")).layer(9).scan, Scan::relative);
  EXPECT_THAT(plan_error(with(infllm, ""), Code::unsupported),
              HasSubstr("layers[0].stages[1].stage_extend_backend is other than that of stages[0]"));
}

TEST(AuthorsJson, WhatCannotBeHonouredIsRefused) {
  const auto unsupported = [](const std::string& text) { return plan_error(text, Code::unsupported); };
  EXPECT_THAT(unsupported(R"({"apply_v_dot":true})"), HasSubstr("apply_v_dot is true"));
  EXPECT_THAT(unsupported(R"({"force_dense":true})"), HasSubstr("force_dense is true, use the plan dense"));
  EXPECT_THAT(unsupported(R"({"prefill_always_dense":true})"), HasSubstr("prefill_always_dense is true"));
  EXPECT_THAT(unsupported(R"({"decode_always_dense":true})"), HasSubstr("decode_always_dense is true"));
  EXPECT_THAT(unsupported(R"({"block_sparse_block_size_q":32})"), HasSubstr("block_sparse_block_size_q is 32"));
  EXPECT_THAT(unsupported(R"({"layers":[{"second_stage_k":512},{}],"prefill_layers":[{},{}]})"),
              HasSubstr("prefill_layers differ from layers, but"));
  EXPECT_THAT(unsupported(R"({"prefill_layers":[{},{}]})"), HasSubstr("layers, which have their defaults"));
  EXPECT_EQ(plan_of(R"({"prefill_layers":[{"second_stage_k":4096},{}]})"), defaults());
  EXPECT_THAT(unsupported(R"({"layers":[{"sa_extend_backend":"self_extend"},{}]})"),
              HasSubstr("layers[0].sa_extend_backend is \"self_extend\""));
  const auto stages = [&](const std::string& more) {
    return R"({"mask_refresh_interval":8,"layers":[{"stages":[)" + stage(64, "null", more) + "]}]}";
  };
  EXPECT_THAT(unsupported(stages(R"(,"require_realign_index":false)")), HasSubstr("layers[0].stages[0].require_realign_index is false"));
  EXPECT_THAT(plan_error(stages(R"(,"reduce_method":"sum")")), HasSubstr("unknown key \"reduce_method\" in layers[0].stages[0]"));
  std::string sparse = stages("");
  sparse.replace(sparse.find(R"("stage_stride":1)"), 16, R"("stage_stride":2)");
  EXPECT_THAT(unsupported(sparse), HasSubstr("layers[0].stages[0].stage_stride is 2"));
}

TEST(AuthorsJson, Mistakes) {
  EXPECT_THAT(plan_error(R"({"dense_layers":[0],"window":8})"), AllOf(HasSubstr("unknown key \"window\""), HasSubstr("using_extend")));
  EXPECT_THAT(plan_error(R"({"layers":[{"second_stage_k":64,"k":1},{}]})"), HasSubstr("unknown key \"k\" in layers[0]"));
  EXPECT_THAT(plan_error(R"({"using_extend":1})"), HasSubstr("using_extend is 1, must be true or false"));
  EXPECT_THAT(plan_error(R"({"dense_layers":[-1]})"), HasSubstr("dense_layers[0] is -1"));
  EXPECT_THAT(plan_error(R"({"dense_layers":3})"), HasSubstr("dense_layers is 3, must be an array"));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":[16,8]})"),
              HasSubstr("mask_refresh_interval has 2 entries, must have as many as stages, 3"));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":0})"), HasSubstr("mask_refresh_interval is 0"));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":"fast"})"), HasSubstr("mask_refresh_interval is \"fast\""));
  EXPECT_THAT(plan_error(R"({"using_extend":true,"layers":[]})"), HasSubstr("the number of layers is 0"));
  EXPECT_THAT(plan_error(R"({"using_extend":true,"layers":[{"stages":[]}]})"), HasSubstr("the number of layers[0].stages is 0"));
  EXPECT_THAT(plan_error(R"({"layers":[{"scan_extend_backend":"clip"}]})"), HasSubstr("layers[0].scan_extend_backend is \"clip\""));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":8,"layers":[{"stages":[)" + stage(64, "32") + "]}]}"),
              HasSubstr("layers[0].stages[0].stage_k is 32, must be null"));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":8,"layers":[{"stages":[)" + stage(64, "null") + "," + stage(8, "null") + "]}]}"),
              HasSubstr("layers[0].stages[1].stage_k is missing"));
  EXPECT_THAT(plan_error(R"({"layers":[{"second_stage_k":4096},{"stages":[)" + stage(64, "null") + "]}]}"),
              HasSubstr("layers[1].stages has 1 entries, must have as many as layers[0].stages, 3"));
  EXPECT_THAT(plan_error(R"({"layers":[{"sink_token_size":100},{}]})"),
              HasSubstr("translated into an attention plan, layers[0].sinks is 100, must be a multiple of the page size 64"));
  EXPECT_THAT(plan_error(R"({"mask_refresh_interval":[1024,8,4]})"), HasSubstr("refresh[0] is 1024, must be at most window"));
}

}  // namespace
}  // namespace bough
