// AttentionPlan: presets, JSON, rules and the fit to a trained context.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/plans.h"

namespace bough {
namespace {

using test::plan_error;
using test::plan_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// The default preset's JSON with the first occurrence of `from` replaced.
std::string changed(std::string_view from, std::string_view to) {
  std::string text = plan_json(plan_of("default"));
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string three_k(const std::string& refresh) {
  return R"({"mode":"stages","sinks":256,"window":1024,"stages":[{"chunk":256,"query_block":64,"query_stride":4,"rounds":0,"piece":0},)"
         R"({"chunk":32,"keep":32768,"query_block":64,"query_stride":4,"rounds":0,"piece":0,"row_piece":0,"row_keep":0},)"
         R"({"chunk":8,"keep":8192,"query_block":64,"query_stride":1,"rounds":0,"piece":0,"row_piece":0,"row_keep":0}],)"
         R"("k":2048,"row_k":0,"tree":null,"first":{"layers":3,"k":4096,"scan":"chunk-indexed"},"scan":"relative","positions":"rank",)"
         R"("lists":"layer","pool":"mean","refresh":)" +
         refresh + R"(,"tail":64,"dense_below":0,"layers":[]})";
}

const std::vector<std::pair<std::string, std::string>> kPresetJson = {
    {"default",
     R"({"mode":"stages","sinks":256,"window":1024,"stages":[{"chunk":64,"query_block":64,"query_stride":16,"rounds":0,"piece":8},)"
     R"({"chunk":16,"keep":32768,"query_block":64,"query_stride":4,"rounds":1,"piece":0,"row_piece":8,"row_keep":65536},)"
     R"({"chunk":8,"keep":8192,"query_block":64,"query_stride":1,"rounds":1,"piece":0,"row_piece":1,"row_keep":16384}],)"
     R"("k":512,"row_k":512,"tree":null,"first":{"layers":3,"k":4096,"scan":"chunk-indexed"},"scan":"relative","positions":"rank",)"
     R"("lists":"layer","pool":"mean","refresh":[16,8,4],"tail":64,"dense_below":0,"layers":[]})"},
    {"descent",
     R"({"mode":"stages","sinks":256,"window":1024,"stages":[{"chunk":64,"query_block":64,"query_stride":4,"rounds":0,"piece":0},)"
     R"({"chunk":16,"keep":32768,"query_block":64,"query_stride":4,"rounds":0,"piece":0,"row_piece":0,"row_keep":0},)"
     R"({"chunk":8,"keep":8192,"query_block":64,"query_stride":1,"rounds":0,"piece":0,"row_piece":0,"row_keep":0}],)"
     R"("k":2048,"row_k":0,"tree":null,"first":{"layers":3,"k":4096,"scan":"chunk-indexed"},"scan":"relative","positions":"rank",)"
     R"("lists":"layer","pool":"mean","refresh":[16,8,4],"tail":64,"dense_below":0,"layers":[]})"},
    {"3k", three_k("[16,8,4]")},
    {"3k-fast", three_k("[32,16,8]")},
    {"3k-flash", three_k("[96,24,8]")},
    {"5k", R"({"mode":"stages","sinks":256,"window":1024,"stages":[{"chunk":64,"query_block":64,"query_stride":4,"rounds":0,"piece":0},)"
           R"({"chunk":32,"keep":32768,"query_block":64,"query_stride":4,"rounds":0,"piece":0,"row_piece":0,"row_keep":0},)"
           R"({"chunk":16,"keep":16384,"query_block":64,"query_stride":1,"rounds":0,"piece":0,"row_piece":0,"row_keep":0}],)"
           R"("k":4096,"row_k":0,"tree":null,"first":null,"scan":"relative","positions":"rank","lists":"layer","pool":"mean",)"
           R"("refresh":[16,8,4],"tail":64,"dense_below":0,"layers":[]})"},
    {"hip",
     R"({"mode":"hip","sinks":64,"window":256,"stages":[],"k":0,"row_k":0,"tree":{"k":512,"query_block":64,"query_stride":2,"key_block":2,)"
     R"("key_stride":1,"rep":"center","refresh":8},"first":null,"scan":"relative","positions":"rank","lists":"layer","pool":"mean",)"
     R"("refresh":[],"tail":64,"dense_below":0,"layers":[]})"},
    {"streaming", R"({"mode":"streaming","sinks":256,"window":1024,"stages":[],"k":0,"row_k":0,"tree":null,"first":null,"scan":"relative",)"
                  R"("positions":"rank","lists":"layer","pool":"mean","refresh":[8],"tail":0,"dense_below":0,"layers":[]})"},
    {"dense",
     R"({"mode":"dense","sinks":0,"window":0,"stages":[],"k":0,"row_k":0,"tree":null,"first":null,"scan":"relative","positions":"rank",)"
     R"("lists":"layer","pool":"mean","refresh":[],"tail":0,"dense_below":0,"layers":[]})"},
};

TEST(Plan, PresetsAreTheDocumentedJson) {
  std::vector<std::string> names;
  for (const auto& [name, text] : kPresetJson) {
    names.push_back(name);
    EXPECT_EQ(plan_json(plan_of(name)), text);
    EXPECT_EQ(plan_of(text), plan_of(name));
    EXPECT_TRUE(validate_plan(plan_of(name)).ok());
  }
  EXPECT_EQ(preset_names(), names);
}

TEST(Plan, MissingFieldsComeFromThePresetOfTheMode) {
  EXPECT_EQ(plan_of("{}"), plan_of("default"));
  EXPECT_EQ(plan_of(R"({"mode":"streaming"})"), plan_of("streaming"));
  EXPECT_EQ(plan_of(R"({"mode":"dense"})"), plan_of("dense"));
  EXPECT_EQ(plan_of(R"({"mode":"hip","tree":{"refresh":8}})"), plan_of("hip"));
  AttentionPlan flash = plan_of("default");
  flash.refresh = {96, 24, 8};
  EXPECT_EQ(plan_of(R"({"refresh":[96,24,8]})"), flash);
  const AttentionPlan one = plan_of(R"({"stages":[{"chunk":32}],"refresh":[4],"first":{"layers":1}})");
  EXPECT_EQ(one.stages, (std::vector<StagePlan>{{.chunk = 32, .keep = 0, .query_block = 64, .query_stride = 1}}));
  EXPECT_EQ(*one.first, (FirstLayers{.layers = 1, .k = 4096, .scan = Scan::chunk_indexed}));
  EXPECT_FALSE(plan_of(R"({"first":null})").first.has_value());
}

TEST(Plan, EveryChoiceSurvivesTheRoundTrip) {
  AttentionPlan p = plan_of("5k");
  p.scan = Scan::chunk_indexed;
  p.first = FirstLayers{.layers = 5, .k = 16, .scan = Scan::relative};
  p.lists = Lists::kv_head;
  p.dense_below = 4096;
  for (Pool pool : {Pool::mean, Pool::strided, Pool::all}) {
    p.pool = pool;
    EXPECT_EQ(plan_of(plan_json(p)), p);
  }
}

TEST(Plan, Accessors) {
  const AttentionPlan p = plan_of("default");
  EXPECT_EQ(p.layer(2).k, 4096);
  EXPECT_EQ(p.layer(3).k, 512);
  EXPECT_EQ(p.layer(2).scan, Scan::chunk_indexed);
  EXPECT_EQ(p.layer(3).scan, Scan::relative);
  EXPECT_EQ(p.max_k(), 4096);
  EXPECT_EQ(p.context_tokens(), 256 + 1024 + 4096 + 64 + 4);
  EXPECT_EQ(plan_of("streaming").context_tokens(), 256 + 1024 + 64 + 8);
  EXPECT_EQ(plan_of("streaming").max_k(), 0);
  EXPECT_EQ(plan_of("hip").context_tokens(), 64 + 256 + 512 + 64 + 8);
  EXPECT_EQ(plan_of("3k-flash").longest_refresh(), 96);
  EXPECT_EQ(plan_of("hip").longest_refresh(), 8);
  EXPECT_EQ(plan_of("dense").context_tokens(), 0);
  AttentionPlan none_first = p;
  none_first.first->layers = 0;
  EXPECT_EQ(none_first.max_k(), 512);
  const AttentionPlan long_chunk = plan_of(R"({"sinks":512,"window":2048,"stages":[{"chunk":512}],"first":null,"refresh":[4]})");
  EXPECT_EQ(long_chunk.context_tokens(), 512 + 2048 + 512 + 512 + 4);
}

TEST(PlanJson, UnknownNames) {
  EXPECT_THAT(plan_error("4k", Code::not_found),
              AllOf(HasSubstr("\"4k\""), HasSubstr("default, descent, 3k, 3k-fast, 3k-flash, 5k, hip, streaming, dense")));
  EXPECT_THAT(plan_error("", Code::not_found), HasSubstr("default"));
  EXPECT_THAT(plan_error(std::string_view("3k\0", 3), Code::not_found), HasSubstr("\\u0000"));
  EXPECT_THAT(plan_error(std::string(5000, 'x'), Code::not_found), AllOf(HasSubstr("xxx\"..."), Not(HasSubstr(std::string(61, 'x')))));
  EXPECT_THAT(plan_error("\xff\xfe", Code::not_found), HasSubstr("presets"));
}

TEST(PlanJson, Files) {
  const std::string path = testing::TempDir() + "bough_plan_test.json";
  std::ofstream(path) << "\n  " << plan_json(plan_of("5k")) << "\n";
  EXPECT_EQ(plan_of(path), plan_of("5k"));
  std::ofstream(path) << R"({"k":7})";
  EXPECT_THAT(plan_error(path), AllOf(HasSubstr("bough_plan_test.json"), HasSubstr("k is 7")));
  std::ofstream(path) << std::string(70000, ' ') << "{}";
  EXPECT_THAT(plan_error(path), HasSubstr("more than 65536 bytes"));
  std::ofstream(path) << "";
  EXPECT_THAT(plan_error(path), HasSubstr("not valid JSON at byte"));
  std::filesystem::remove(path);
  EXPECT_THAT(plan_error(testing::TempDir()), HasSubstr("not a regular file"));
}

TEST(PlanJson, MalformedText) {
  EXPECT_THAT(plan_error(R"({"k":2048)"), HasSubstr("not valid JSON at byte 10"));
  EXPECT_THAT(plan_error("{\"k\":1}\xff"), HasSubstr("not valid JSON"));
  EXPECT_THAT(plan_error(std::string_view("{\"k\":8\0}", 8)), HasSubstr("not valid JSON"));
  EXPECT_THAT(plan_error("{\"\xed\xa0\x80\":1}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(plan_error(R"({"\ud800":1})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(plan_error("{" + std::string(70000, ' ') + "}"), HasSubstr("more than 65536 bytes"));
  std::string deep = R"({"k":)" + std::string(16, '[') + std::string(16, ']') + "}";
  EXPECT_THAT(plan_error(deep), HasSubstr("nests deeper than 16"));
  EXPECT_THAT(plan_error(R"({"k":)" + std::string(60000, '[')), HasSubstr("nests deeper than 16"));
  EXPECT_THAT(plan_error(R"({"k":)" + std::string(15, '[') + std::string(15, ']') + "}"), HasSubstr("k is an array"));
  EXPECT_THAT(plan_error(R"({"k":1e999})"), HasSubstr("outside the range"));
}

TEST(PlanJson, Keys) {
  EXPECT_THAT(plan_error(R"({"sink":256})"), AllOf(HasSubstr("unknown key \"sink\" in the attention plan"), HasSubstr("sinks")));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":64},{"chunk":8,"keeps":8}]})"), HasSubstr("unknown key \"keeps\" in stages[1]"));
  EXPECT_THAT(plan_error(R"({"first":{"layer":3}})"), HasSubstr("unknown key \"layer\" in first"));
  EXPECT_THAT(plan_error(R"({"k":2048,"k":2048})"), HasSubstr("the key \"k\" appears twice"));
  EXPECT_THAT(plan_error(R"({"first":{"k":8,"scan":"relative","k":8}})"), HasSubstr("the key \"k\" appears twice"));
  EXPECT_THAT(plan_error(R"({"stages":[{"keep":0}]})"), HasSubstr("stages[0].chunk is missing"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":64},{"chunk":8}]})"), HasSubstr("stages[1].keep is missing"));
}

TEST(PlanJson, TypesAndNumbers) {
  EXPECT_THAT(plan_error(R"({"k":"2048"})"), HasSubstr("k is \"2048\", must be an integer from 0 to 2147483648"));
  EXPECT_THAT(plan_error(R"({"k":2048.0})"), HasSubstr("k is 2048.0, must be an integer"));
  EXPECT_THAT(plan_error(R"({"k":null})"), HasSubstr("k is null"));
  EXPECT_THAT(plan_error(R"({"window":-8})"), HasSubstr("window is -8, must be an integer from 0"));
  EXPECT_THAT(plan_error(R"({"sinks":4294967296})"), HasSubstr("sinks is 4294967296, must be an integer from 0 to 2147483648"));
  EXPECT_THAT(plan_error(R"({"sinks":18446744073709551615})"), HasSubstr("sinks is 18446744073709551615"));
  EXPECT_THAT(plan_error(R"({"sinks":99999999999999999999})"), HasSubstr("sinks is 1e+20, must be an integer"));
  EXPECT_THAT(plan_error(R"({"tail":1025})"), HasSubstr("tail is 1025, must be an integer from 0 to 1024"));
  EXPECT_THAT(plan_error(R"({"dense_below":-1})"), HasSubstr("dense_below is -1"));
  EXPECT_THAT(plan_error(R"({"stages":{}})"), HasSubstr("stages is an object, must be an array"));
  EXPECT_THAT(plan_error(R"({"stages":[1]})"), HasSubstr("stages[0] is 1, must be an object"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":4294967360}]})"),
              HasSubstr("stages[0].chunk is 4294967360, must be an integer from 1 to 1024"));
  EXPECT_THAT(plan_error(R"({"first":3})"), HasSubstr("first is 3, must be an object"));
  EXPECT_THAT(plan_error(R"({"first":{"layers":-1}})"), HasSubstr("first.layers is -1, must be an integer from 0 to 1024"));
  EXPECT_THAT(plan_error(R"({"refresh":16})"), HasSubstr("refresh is 16, must be an array"));
  EXPECT_THAT(plan_error(R"({"refresh":[16,"8",4]})"), HasSubstr("refresh[1] is \"8\""));
  EXPECT_THAT(plan_error(R"({"refresh":[16,8,0]})"), HasSubstr("refresh[2] is 0, must be an integer from 1 to 65536"));
  EXPECT_THAT(plan_error(R"({"refresh":[16,8,4,2,1]})"), HasSubstr("refresh has 5 entries, must have at most 4"));
  EXPECT_THAT(plan_error(R"({"mode":"sparse"})"),
              HasSubstr("mode is \"sparse\", must be one of the strings stages, hip, streaming, dense"));
  EXPECT_THAT(plan_error(R"({"scan":"chunk_indexed"})"),
              HasSubstr("one of the strings relative, chunk-indexed, infllm, dynamic-extend, self-extend"));
  EXPECT_THAT(plan_error(R"({"first":{"scan":0}})"), HasSubstr("first.scan is 0"));
  EXPECT_THAT(plan_error(R"({"lists":"head"})"), HasSubstr("one of the strings layer, kv_head"));
  EXPECT_THAT(plan_error(R"({"pool":"max"})"), HasSubstr("one of the strings mean, strided, all"));
}

TEST(PlanRules, Stages) {
  EXPECT_THAT(plan_error(changed("\"chunk\":16", "\"chunk\":24")),
              HasSubstr("stages[1].chunk is 24, must be a power of two from 1 to 1024"));
  EXPECT_THAT(plan_error(changed("\"chunk\":16", "\"chunk\":128")),
              HasSubstr("stages[1].chunk is 128, must be a divisor of the previous chunk 64"));
  EXPECT_THAT(plan_error(changed("\"query_block\":64", "\"query_block\":48")),
              HasSubstr("stages[0].query_block is 48, must be 16, 32 or 64"));
  EXPECT_THAT(plan_error(changed("\"query_block\":64", "\"query_block\":32")),
              HasSubstr("stages[1].query_block is 64, must be that of the first stage or tree, 32"));
  EXPECT_THAT(plan_error(changed("\"query_stride\":4", "\"query_stride\":3")),
              HasSubstr("stages[1].query_stride is 3, must be a divisor of query_block 64"));
  EXPECT_THAT(plan_error(changed("\"rounds\":0", "\"rounds\":10")), HasSubstr("stages[0].rounds is 10, must be from 0 to 7"));
  EXPECT_THAT(plan_error(changed("\"piece\":0", "\"piece\":24")),
              HasSubstr("stages[1].piece is 24, must be 0 or a divisor of the chunk 16"));
  EXPECT_THAT(plan_error(changed("\"rounds\":0,\"piece\":8", "\"rounds\":1,\"piece\":8")),
              HasSubstr("stages[0].piece is 8, must be 0 where a stage has rounds"));
  EXPECT_THAT(plan_error(changed("\"row_piece\":8", "\"row_piece\":32")),
              HasSubstr("stages[1].row_piece is 32, must be 0 or a divisor of the chunk 16"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":64,"row_piece":8,"row_keep":0}],"refresh":[4]})"),
              HasSubstr("stages[0].row_piece is 8, must be 0: one summary serves the first stage of all query blocks"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":64,"row_keep":8192}],"refresh":[4]})"), HasSubstr("stages[0].row_keep is 8192, must be 0"));
  EXPECT_THAT(plan_error(R"({"stages":[]})"), HasSubstr("the number of stages is 0, must be from 1 to 4"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":8},{"chunk":8,"keep":8192},{"chunk":8,"keep":8192},{"chunk":8,"keep":8192},{}]})"),
              HasSubstr("stages has 5 entries, must have at most 4"));
  EXPECT_THAT(plan_error(R"({"stages":[{"chunk":64,"keep":64}],"refresh":[4]})"), HasSubstr("stages[0].keep is 64, must be 0"));
}

TEST(PlanRules, Keeps) {
  EXPECT_THAT(plan_error(changed("\"keep\":32768", "\"keep\":32760")),
              HasSubstr("stages[1].keep is 32760, must be a multiple of the previous chunk 64"));
  EXPECT_THAT(plan_error(changed("\"keep\":8192", "\"keep\":8200")),
              HasSubstr("stages[2].keep is 8200, must be a multiple of the previous chunk 16"));
  EXPECT_THAT(plan_error(changed("\"keep\":8192", "\"keep\":65536")),
              HasSubstr("stages[2].keep is 65536, must be at most the previous keep 32768"));
  EXPECT_THAT(plan_error(changed("\"keep\":8192", "\"keep\":256")), HasSubstr("stages[2].keep is 256, must be at least k 512"));
  const auto rows = [](const std::string& middle, const std::string& last) {
    return R"({"stages":[{"chunk":64},{"chunk":16,"keep":32768,"row_keep":)" + middle + R"(},{"chunk":8,"keep":8192,"row_keep":)" + last +
           "}]}";
  };
  EXPECT_TRUE(parse_plan(rows("65536", "16384")).ok());
  EXPECT_TRUE(parse_plan(rows("0", "32768")).ok());
  EXPECT_TRUE(parse_plan(rows("8192", "0")).ok());
  EXPECT_THAT(
      plan_error(rows("0", "32784")),
      HasSubstr(
          "stages[2].row_keep is 32784, so single rows pass on 32784 tokens, must be at most the 32768 that entered the stage before"));
  EXPECT_THAT(
      plan_error(rows("4096", "0")),
      HasSubstr("stages[2].row_keep is 0, so single rows pass on 8192 tokens, must be at most the 4096 that entered the stage before"));
  EXPECT_THAT(plan_error(rows("65568", "0")), HasSubstr("stages[1].row_keep is 65568, must be a multiple of the previous chunk 64"));
  EXPECT_THAT(plan_error(rows("0", "256")), HasSubstr("stages[2].row_keep is 256, must be at least k 512"));
  EXPECT_TRUE(parse_plan(R"({"row_k":16384})").ok());
  EXPECT_TRUE(parse_plan(R"({"row_k":8})").ok());
  EXPECT_THAT(plan_error(R"({"row_k":12})"), HasSubstr("row_k is 12, must be a multiple of the last chunk 8"));
  EXPECT_EQ(plan_of(R"({"row_k":512})").layer(0).selected(1), 512) << "in the first layers too";
  EXPECT_EQ(plan_of(R"({"k":2048,"row_k":512})").layer(9).selected(2), 2048);
  EXPECT_EQ(plan_of(R"({"k":2048,"row_k":16384})").layer(9).selected(1), 2048) << "never more than k";
  EXPECT_EQ(plan_of(R"({"k":2048,"row_k":512,"layers":[{"layers":[9],"row_k":0}]})").layer(9).selected(1), 2048);
  EXPECT_THAT(plan_error(R"({"mode":"hip","row_k":8})"), HasSubstr("row_k is 8, must be 0 in mode hip"));
  EXPECT_THAT(plan_error(R"({"mode":"hip","layers":[{"layers":[1],"row_k":8}]})"),
              HasSubstr("layers[0].row_k is set, but mode hip does not use it"));
  EXPECT_THAT(plan_error(rows("0", "-16")), HasSubstr("stages[2].row_keep is -16, must be an integer from 0 to"));
  EXPECT_THAT(plan_error(changed("\"keep\":8192", "\"keep\":2048")), HasSubstr("stages[2].keep is 2048, must be at least first.k 4096"));
  EXPECT_THAT(plan_error(changed("\"keep\":8192", "\"keep\":0")), HasSubstr("stages[2].keep is 0, must be from 1"));
}

TEST(PlanRules, SinksWindowK) {
  EXPECT_THAT(plan_error(R"({"sinks":100})"), HasSubstr("sinks is 100, must be a multiple of the page size 64"));
  EXPECT_EQ(plan_of(R"({"sinks":0})").sinks, 0);
  EXPECT_THAT(plan_error(R"({"sinks":256,"window":2048,"stages":[{"chunk":512}],"refresh":[4]})"),
              HasSubstr("sinks is 256, must be a multiple of the last chunk 512"));
  EXPECT_THAT(plan_error(R"({"window":1020})"), HasSubstr("window is 1020, must be a multiple of the last chunk 8"));
  EXPECT_THAT(plan_error(R"({"window":120})"), HasSubstr("window is 120, must be at least twice stages[0].chunk, 128"));
  EXPECT_THAT(plan_error(R"({"window":0})"), HasSubstr("window is 0, must be from 8"));
  EXPECT_THAT(plan_error(R"({"k":2044})"), HasSubstr("k is 2044, must be a multiple of the last chunk 8"));
  EXPECT_THAT(plan_error(R"({"k":0})"), HasSubstr("k is 0, must be from 8"));
  EXPECT_THAT(plan_error(R"({"first":{"k":4100}})"), HasSubstr("first.k is 4100, must be a multiple of the last chunk 8"));
  EXPECT_THAT(plan_error(R"({"first":{"k":0}})"), HasSubstr("first.k is 0, must be from 8"));
}

TEST(PlanRules, Refresh) {
  EXPECT_THAT(plan_error(R"({"refresh":[8,4]})"), HasSubstr("refresh has 2 intervals, must have as many as stages, 3"));
  EXPECT_THAT(plan_error(R"({"refresh":[16,8,3]})"), HasSubstr("refresh[2] is 3, must be a divisor of the previous interval 8"));
  EXPECT_THAT(plan_error(R"({"refresh":[8,16,4]})"), HasSubstr("refresh[1] is 16, must be a divisor of the previous interval 8"));
  EXPECT_THAT(plan_error(R"({"refresh":[968,8,4]})"), HasSubstr("refresh[0] is 968, must be at most window - stages[0].chunk, 960"));
  EXPECT_EQ(plan_of(R"({"refresh":[960,8,4]})").refresh[0], 960);
  EXPECT_EQ(plan_of(R"({"refresh":[1,1,1]})").longest_refresh(), 1);
}

TEST(PlanRules, ModesWithoutSelection) {
  EXPECT_THAT(plan_error(R"({"mode":"streaming","k":8})"), HasSubstr("k is 8, must be 0 in mode streaming"));
  EXPECT_THAT(plan_error(R"({"mode":"streaming","first":{}})"), HasSubstr("first is set, but mode streaming has no stages"));
  EXPECT_THAT(plan_error(R"({"mode":"streaming","stages":[{"chunk":8}]})"), HasSubstr("stages has 1 entries, but mode streaming has none"));
  EXPECT_THAT(plan_error(R"({"mode":"streaming","refresh":[]})"), HasSubstr("refresh has 0 entries, mode streaming has exactly 1"));
  EXPECT_THAT(plan_error(R"({"mode":"streaming","refresh":[2000]})"), HasSubstr("refresh[0] is 2000, must be at most the window 1024"));
  EXPECT_THAT(plan_error(R"({"mode":"streaming","window":12})"), HasSubstr("window is 12, must be a multiple of the last chunk 8"));
  EXPECT_THAT(plan_error(R"({"mode":"dense","sinks":64})"), HasSubstr("sinks is 64, must be 0 in mode dense"));
  EXPECT_THAT(plan_error(R"({"mode":"dense","tail":64})"), HasSubstr("tail is 64, must be 0 in mode dense"));
  EXPECT_THAT(plan_error(R"({"mode":"dense","refresh":[4]})"), HasSubstr("refresh has 1 entries, but mode dense has none"));
}

TEST(PlanRules, ValuesThatJsonCannotHold) {
  auto message = [](auto change) {
    AttentionPlan p = plan_of("default");
    change(p);
    return validate_plan(p).message();
  };
  EXPECT_THAT(message([](auto& p) { p.mode = static_cast<Mode>(9); }), HasSubstr("mode is none of stages"));
  EXPECT_THAT(message([](auto& p) { p.first->scan = static_cast<Scan>(9); }), HasSubstr("first.scan is none of"));
  EXPECT_THAT(message([](auto& p) { p.lists = static_cast<Lists>(9); }), HasSubstr("lists is none of"));
  EXPECT_THAT(message([](auto& p) { p.pool = static_cast<Pool>(9); }), HasSubstr("pool is none of"));
  EXPECT_THAT(message([](auto& p) { p.stages[0].chunk = -64; }), HasSubstr("stages[0].chunk is -64, must be from 1 to 1024"));
  EXPECT_THAT(message([](auto& p) { p.sinks = -64; }), HasSubstr("sinks is -64"));
  EXPECT_THAT(message([](auto& p) { p.refresh[2] = -4; }), HasSubstr("refresh[2] is -4, must be from 1"));
  EXPECT_THAT(message([](auto& p) { p.first->layers = 5000; }), HasSubstr("first.layers is 5000, must be from 0 to 1024"));
  EXPECT_THAT(message([](auto& p) { p.window = INT64_MAX - 7; }), HasSubstr("must be from 8 to 2147483648"));
}

// Any bytes give a plan that holds every rule and survives the round trip, or one sentence; never a crash.
TEST(PlanJson, SurvivesMutation) {
  const std::vector<std::string> pieces = {"{",
                                           "}",
                                           "[",
                                           "]",
                                           ",",
                                           ":",
                                           "\"",
                                           "null",
                                           "-1",
                                           "1e9",
                                           "0.5",
                                           "9223372036854775808",
                                           "\\u0000",
                                           "\"k\":8,",
                                           "\"keep\"",
                                           "\"first\":{}",
                                           "\xff",
                                           "\xe2\x82",
                                           "[[[[[[[[[[[[[[[[[["};
  std::mt19937_64 random(20240711);
  int accepted = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text = kPresetJson[random() % kPresetJson.size()].second;
    for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = 1 + random() % (text.size() - 1);
      switch (random() % 5) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 8); break;
        case 2: text.insert(at, pieces[random() % pieces.size()]); break;
        case 3: text.insert(at, text.substr(random() % text.size(), random() % 32)); break;
        default: text[std::min(text.find_first_of("0123456789", at), text.size() - 1)] = static_cast<char>('0' + random() % 10);
      }
    }
    const auto result = parse_plan(text);
    if (!result.ok()) {
      ASSERT_FALSE(result.status().message().empty());
      ASSERT_LT(result.status().message().size(), 400u) << result.status().message();
      continue;
    }
    ++accepted;
    ASSERT_TRUE(validate_plan(*result).ok()) << text;
    const auto again = parse_plan(plan_json(*result));
    ASSERT_TRUE(again.ok()) << text;
    ASSERT_EQ(*again, *result) << text;
  }
  EXPECT_GT(accepted, 20);
}

}  // namespace
}  // namespace bough
