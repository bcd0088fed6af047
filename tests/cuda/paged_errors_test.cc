// What PagedAttention refuses: a sentence that names the field, its value and the limit.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

struct Arguments {
  AttentionPlan plan = small_plan();
  int layer = 0;
  PagedShape shape = shape_of(8, 2, 128, ElementType::bf16, ElementType::bf16);
  PagedLimits limits;
};

struct Refusal {
  std::string name;
  std::function<void(Arguments&)> spoil;
  std::vector<std::string> says;
  Code code = Code::invalid_argument;
};

std::vector<Refusal> refusals() {
  return {
      {"no_heads", [](Arguments& a) { a.shape.heads = 0; }, {"heads", "0"}},
      {"uneven_heads", [](Arguments& a) { a.shape.heads = 7; }, {"heads", "7", "2"}},
      {"many_heads", [](Arguments& a) { a.shape.heads = 34; }, {"heads", "34", "16"}},
      {"no_kv_heads", [](Arguments& a) { a.shape.kv_heads = 0; }, {"kv_heads", "0", "1"}},
      {"many_kv_heads", [](Arguments& a) { a.shape.heads = a.shape.kv_heads = 33; }, {"kv_heads", "33", "32"}},
      {"head_dim", [](Arguments& a) { a.shape.head_dim = 80; }, {"head_dim", "80", "64", "256"}},
      {"q_type", [](Arguments& a) { a.shape.q_type = ElementType::e4m3; }, {"q_type", "e4m3", "bf16"}},
      {"kv_type", [](Arguments& a) { a.shape.kv_type = ElementType::f16; }, {"kv_type", "f16", "bf16"}},
      {"uneven_page", [](Arguments& a) { a.shape.page_tokens = 24; }, {"page_tokens", "24", "power of two"}},
      {"short_page", [](Arguments& a) { a.shape.page_tokens = 4; }, {"page_tokens", "4", "8"}},
      {"long_page", [](Arguments& a) { a.shape.page_tokens = 2048; }, {"page_tokens", "2048", "1024"}},
      {"scale", [](Arguments& a) { a.shape.scale = -0.5F; }, {"scale", "-0.5"}},
      {"softcap", [](Arguments& a) { a.shape.softcap = -3; }, {"softcap", "-3"}},
      {"softcap_nan", [](Arguments& a) { a.shape.softcap = NAN; }, {"softcap", "nan"}},
      {"sliding_window", [](Arguments& a) { a.shape.sliding_window = -1; }, {"sliding_window", "-1"}},
      {"many_frequencies", [](Arguments& a) { a.shape.rope.frequencies.resize(72, 1.0); }, {"frequencies", "144", "128"}},
      {"trained_context", [](Arguments& a) { a.shape.trained_context = 0; }, {"trained_context", "0", "1"}},
      {"no_rows", [](Arguments& a) { a.limits.rows = 0; }, {"rows", "0", "1"}},
      {"no_sequences", [](Arguments& a) { a.limits.sequences = 0; }, {"sequences", "0", "1"}},
      {"many_sequences", [](Arguments& a) { a.limits.sequences = 1025; }, {"sequences", "1025", "1024"}},
      {"no_length", [](Arguments& a) { a.limits.length = 0; }, {"length", "0", "1"}},
      {"layer", [](Arguments& a) { a.layer = -1; }, {"layer", "-1"}},
      {"rotated_beyond_training",
       [](Arguments& a) {
         a.shape.keys_rotated = true;
         a.limits.length = 5000;
       },
       {"length", "5000", "4096"}},
      {"plan", [](Arguments& a) { a.plan.k = 250; }, {"k", "250", "8"}},
      {"plan_too_long", [](Arguments& a) { a.shape.trained_context = 200; }, {"200"}},
      {"tree_query_block",
       [](Arguments& a) { a.plan = tree_plan(64, 256, {.query_block = 32}); },
       {"query_block", "32", "64"},
       Code::unsupported},
      {"query_block",  // blocks have 64 rows: another number must not be ignored in silence
       [](Arguments& a) {
         for (StagePlan& stage : a.plan.stages) stage.query_block = 32;
       },
       {"query_block", "32", "64"},
       Code::unsupported},
  };
}

std::vector<Refusal> refused_pieces() {
  return {
      {"long_piece",
       [](Arguments& a) {
         a.plan.stages[0].piece = 32;
         a.shape.page_tokens = 16;
       },
       {"stages[0].piece", "32", "page_tokens", "16"},
       Code::unsupported},
      {"pieces_of_two_sizes",
       [](Arguments& a) {
         a.plan.stages[0].piece = 16;
         a.plan.stages[1].piece = 8;
       },
       {"stages[1].piece", "8", "16"},
       Code::unsupported},
      {"row_piece_of_another_size",
       [](Arguments& a) {
         a.plan.stages[0].piece = 16;
         a.plan.stages[1].row_piece = 8;
       },
       {"stages[1].row_piece", "8", "16"},
       Code::unsupported},
  };
}

void expect_words(const std::string& message, const std::vector<std::string>& words) {
  for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << '"' << word << "\" is missing in: " << message;
}

std::ostream& operator<<(std::ostream& out, const Refusal& r) { return out << r.name; }

class PagedRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(PagedRefusal, NamesValueAndLimit) {
  Arguments a;
  a.limits.rows = 64;
  a.limits.sequences = 4;
  a.limits.length = 1000;
  GetParam().spoil(a);
  const Result<PagedAttention> result = PagedAttention::create(a.plan, a.layer, a.shape, a.limits);
  ASSERT_FALSE(result.ok()) << "accepted";
  EXPECT_EQ(code_name(result.status().code()), code_name(GetParam().code)) << result.status().message();
  expect_words(result.status().message(), GetParam().says);
}

INSTANTIATE_TEST_SUITE_P(Create, PagedRefusal, testing::ValuesIn(refusals()), [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Pieces, PagedRefusal, testing::ValuesIn(refused_pieces()), [](const auto& info) { return info.param.name; });

class PagedCalls : public testing::Test {
 protected:
  static void expect_refused(const Status& status, const std::vector<std::string>& says) {
    EXPECT_EQ(code_name(status.code()), code_name(Code::invalid_argument)) << status.message();
    expect_words(status.message(), says);
  }
};

TEST_F(PagedCalls, MoreThanTheLimitsIsRefused) {
  const PagedCase c(samples().front());
  BOUGH_MAKE_RUN(run, c);
  const PagedLimits limits = c.limits();
  const DeviceCall call(c, c.parts());
  const DeviceBuffer workspace(run.attention().workspace_bytes(), std::byte{0});
  const auto prune = [&](const PagedBatch& batch) {
    return run.attention().prune(batch, call.q(), call.cache(), workspace.data(), run.stream().get());
  };
  PagedBatch batch = call.batch();
  batch.rows = limits.rows + 1;
  expect_refused(prune(batch), {"rows", std::to_string(limits.rows + 1), std::to_string(limits.rows)});
  batch = call.batch();
  batch.sequences = limits.sequences + 1;
  expect_refused(prune(batch), {"sequences", std::to_string(limits.sequences + 1), std::to_string(limits.sequences)});
  batch = call.batch();
  batch.longest = limits.length + 1;
  expect_refused(prune(batch), {"longest", std::to_string(limits.length + 1), std::to_string(limits.length)});
  EXPECT_TRUE(prune(call.batch()).ok());
  run.stream().wait();
}

TEST_F(PagedCalls, WhatIsMissingIsNamed) {
  const PagedCase c(samples().front());
  BOUGH_MAKE_RUN(run, c);
  const DeviceCall call(c, c.parts());
  const DeviceBuffer workspace(run.attention().workspace_bytes(), std::byte{0});
  void* stream = run.stream().get();
  const PagedAttention& attention = run.attention();
  PagedBatch batch = call.batch();
  batch.query_start = nullptr;
  expect_refused(attention.prune(batch, call.q(), call.cache(), workspace.data(), stream), {"query_start"});
  batch = call.batch();
  batch.lengths = nullptr;
  expect_refused(attention.prune(batch, call.q(), call.cache(), workspace.data(), stream), {"lengths"});
  expect_refused(attention.prune(call.batch(), {}, call.cache(), workspace.data(), stream), {"q"});
  expect_refused(attention.prune(call.batch(), call.q(), {}, workspace.data(), stream), {"cache"});
  expect_refused(attention.prune(call.batch(), call.q(), call.cache(), nullptr, stream), {"workspace"});
  expect_refused(attention.attend(call.batch(), call.q(), call.cache(), {}, nullptr, nullptr, workspace.data(), stream), {"o"});
}

// A prune of the sample with another summary.
class PagedSummaryCalls : public PagedCalls {
 protected:
  static void expect_refused_with(PagedSpec spec, const std::function<void(PagedCache&)>& spoil, const std::vector<std::string>& says) {
    const PagedCase c(std::move(spec));
    BOUGH_MAKE_RUN(run, c);
    const DeviceCall call(c, c.parts());
    const DeviceBuffer workspace(run.attention().workspace_bytes(), std::byte{0});
    PagedCache cache = call.cache();
    spoil(cache);
    expect_refused(run.attention().prune(call.batch(), call.q(), cache, workspace.data(), run.stream().get()), says);
  }
  // Chunks of 64 in the first stage.
  static PagedSpec spec(int page_tokens, int step) {
    PagedSpec spec = samples().front();
    spec.shape.page_tokens = page_tokens;
    spec.summary_step = step;
    return spec;
  }
};

TEST_F(PagedSummaryCalls, StepsAreRefusedByWhatTheyExceed) {
  const auto step = [](int n) { return [n](PagedCache& cache) { cache.summary_step = n; }; };
  expect_refused_with(spec(64, 16), step(12), {"summary_step", "12", "power of two", "64"});
  expect_refused_with(spec(64, 16), step(2), {"summary_step", "2", "power of two", "4"});
  expect_refused_with(spec(256, 16), step(128), {"summary_step", "128", "power of two", "64"});
  expect_refused_with(spec(64, 16), step(32), {"summary_step", "32", "quarter", "first chunk", "64"});
  expect_refused_with(spec(8, 8), step(16), {"summary_step", "16", "page_tokens", "8"});
}

TEST_F(PagedSummaryCalls, PlanesAreRefusedAsThoseOfTheCache) {
  expect_refused_with(spec(64, 16), [](PagedCache& cache) { cache.summary.data = static_cast<const std::byte*>(cache.summary.data) + 8; },
                      {"cache.summary", "aligned"});
  expect_refused_with(spec(64, 16), [](PagedCache& cache) { cache.summary.data = nullptr; }, {"cache.summary", "null"});
  expect_refused_with(spec(64, 16), [](PagedCache& cache) { cache.summary.strides.head = 12; }, {"cache.summary", "stride", "12"});
}

TEST_F(PagedSummaryCalls, MeansAreAskedForByThePlan) {
  const PagedSpec means = pieces().front();
  expect_refused_with(means, [](PagedCache& cache) { cache.summary = {}; }, {"cache.summary_step", "8", "means"});
  expect_refused_with(means, [](PagedCache& cache) { cache.summary_step = 16; }, {"cache.summary_step", "16", "8", "means"});
  expect_refused_with(means, [](PagedCache& cache) { cache.summary.strides.head = 12; }, {"cache.summary", "stride", "12"});
  static const float scale = 1;
  expect_refused_with(means, [](PagedCache& cache) { cache.summary.scale = &scale; }, {"cache.summary", "scales", "means"});
}

TEST_F(PagedSummaryCalls, ALayerThatScansNothingHasNone) {
  PagedSpec dense = samples().front();
  dense.plan = AttentionPlan{};
  expect_refused_with(dense,
                      [](PagedCache& cache) {
                        cache.summary = cache.k;
                        cache.summary_step = 16;
                      },
                      {"cache.summary", "no stages"});
}

TEST_F(PagedSummaryCalls, ScalesAreItsOwnWhereTheyDifferByToken) {
  PagedSpec e4m3 = spec(64, 16);
  e4m3.shape.kv_type = ElementType::e4m3;
  e4m3.scales = Scales::token;
  expect_refused_with(e4m3, [](PagedCache& cache) { cache.summary.scale = nullptr; }, {"cache.k", "cache.summary", "scale"});
  expect_refused_with(e4m3, [](PagedCache& cache) { cache.summary.scale_strides.token = 0; }, {"cache.summary", "token stride"});
  e4m3.scales = Scales::head;
  expect_refused_with(e4m3, [](PagedCache& cache) { cache.summary.scale = cache.k.scale; }, {"cache.summary", "cache.k", "scales"});
}

// The plan is cut to what the model was trained on, and says so.
TEST_F(PagedCalls, ThePlanIsFitted) {
  Arguments a;
  a.limits.rows = 64;
  a.limits.sequences = 1;
  a.limits.length = 1000;
  a.shape.trained_context = 450;
  const Result<PagedAttention> result = PagedAttention::create(a.plan, 0, a.shape, a.limits);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_LE(result->plan().context_tokens(), 450);
  EXPECT_LT(result->plan().k, a.plan.k);
}

}  // namespace
}  // namespace bough::test
