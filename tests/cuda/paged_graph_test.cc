// Calls captured in CUDA graphs: replayed with other lengths they give the bits of eager calls.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

constexpr int kSteps = 20;

class PagedGraph : public testing::TestWithParam<PagedSpec> {};

// Text i joins at step 2 i; until then its row has no length.
std::vector<DecodeRow> rows_at(const PagedCase& c, int step) {
  std::vector<DecodeRow> rows;
  for (int i = 0; i < static_cast<int>(c.spec().texts.size()); ++i) {
    const int64_t own = step - 2 * i;
    rows.push_back({i, own < 0 ? 0 : c.spec().texts[static_cast<size_t>(i)].length + own, std::max<int64_t>(0, own), i});
  }
  return rows;
}

// One graph for each least stage, captured once.
TEST_P(PagedGraph, DecodeStepsEqualEagerOnes) {
  const PagedCase c(GetParam(), kSteps);
  BOUGH_MAKE_RUN(run, c);
  const int slots = static_cast<int>(c.spec().texts.size());
  DecodeRun eager(c, run, slots);
  std::vector<Output> want;
  want.reserve(kSteps);
  for (int step = 0; step < kSteps; ++step) want.push_back(eager.step(rows_at(c, step)));
  const DeviceBuffer states(run.attention().state_bytes(slots), std::byte{0});
  DecodeCall call(c, run.attention(), rows_at(c, 0));
  std::map<int, Graph> graphs;
  for (int step = 0; step < kSteps; ++step) {
    call.set(rows_at(c, step));
    call.call().longest = c.limits().length;
    if (!graphs.contains(call.least_stage())) {
      graphs.emplace(call.least_stage(), Graph(run.stream(), [&] { run.decode(call, states, slots); }));
    }
    graphs.at(call.least_stage()).launch(run.stream());
    ASSERT_TRUE(same_bits(run.read(call.call()), want[static_cast<size_t>(step)])) << "step " << step;
  }
  EXPECT_TRUE(states.intact());
}

TEST_P(PagedGraph, PrefillsEqualEagerOnes) {
  PagedSpec spec = GetParam();
  spec.texts = {{300, 65}, {1200, 130}, {1, 1}};
  if (spec.plan.mode != Mode::dense) spec.plan.tail = 5;
  const PagedCase c(std::move(spec), 150);
  BOUGH_MAKE_RUN(run, c);
  std::vector<std::vector<Part>> all;
  for (const int64_t more : {0, 1, 64, 149, 150}) {
    all.push_back(c.parts());
    for (Part& part : all.back()) part.length += more;
  }
  std::vector<PagedRun::Prefill> want;
  want.reserve(all.size());
  for (const std::vector<Part>& parts : all) want.push_back(run.prefill(parts));
  DeviceCall call(c, all.front());
  call.longest = c.limits().length;
  const Graph graph(run.stream(), [&] {
    run.prune(call);
    run.attend(call, call.lse(), nullptr);
  });
  for (size_t i = 0; i < all.size(); ++i) {
    call.set(all[i]);
    graph.launch(run.stream());
    EXPECT_TRUE(same_bits(run.read(call), want[i].out)) << "replay " << i;
    EXPECT_EQ(run.selection(), want[i].blocks) << "replay " << i;
  }
}

std::vector<PagedSpec> some() {
  std::vector<PagedSpec> specs;
  for (const PagedSpec& spec : decode_grid()) {
    for (const char* name : {"bf16_d64", "e4m3_d128_exact", "per_head", "contiguous_p16", "sliding", "streaming", "dense"}) {
      if (spec.name == name) specs.push_back(spec);
    }
  }
  return specs;
}

INSTANTIATE_TEST_SUITE_P(Some, PagedGraph, testing::ValuesIn(some()), spec_name);

}  // namespace
}  // namespace bough::test
