#include "cuda/paged_fixture.h"

#include <algorithm>
#include <functional>

namespace bough::test {
namespace {

// The block without its lists.
BlockChoice frame_of(const BlockChoice& choice) {
  BlockChoice frame = choice;
  frame.starts.clear();
  return frame;
}

bool is_list(const std::vector<int32_t>& list, const BlockChoice& block, int64_t sinks, int chunk) {
  if (static_cast<int64_t>(list.size()) != block.count) return false;
  if (!std::is_sorted(list.begin(), list.end(), std::less_equal<>())) return false;
  return std::all_of(list.begin(), list.end(),
                     [&](int32_t start) { return start >= sinks && start + chunk <= block.w0 && (start - sinks) % chunk == 0; });
}

}  // namespace

bool well_formed(const Oracle& oracle, const Batch& batch, const std::vector<BlockChoice>& got, const std::vector<BlockChoice>& want) {
  EXPECT_EQ(want.size(), batch.blocks.size());
  EXPECT_EQ(got.size(), want.size()) << "number of query blocks";
  if (got.size() != want.size()) return false;
  bool whole = true;
  for (size_t b = 0; b < got.size(); ++b) {
    EXPECT_EQ(frame_of(got[b]), frame_of(want[b]));
    whole = whole && frame_of(got[b]) == frame_of(want[b]) && got[b].starts.size() == want[b].starts.size();
    for (size_t h = 0; h < got[b].starts.size(); ++h) {
      const bool list = is_list(got[b].starts[h], got[b], oracle.layer().sinks, oracle.layer().last_chunk());
      EXPECT_TRUE(list) << "list " << h << " of the block at " << got[b].r0 << " is not ascending or not within [sinks, w0)";
      whole = whole && list;
    }
  }
  return whole;
}

void expect_oracles_prefill(const PagedCase& c) {
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  const std::vector<Part> parts = c.parts();
  const Batch batch = oracle.batch(parts);
  const std::vector<float> q = c.queries(parts);
  const PagedRun::Prefill got = run.prefill(parts);
  ASSERT_TRUE(well_formed(oracle, batch, got.blocks, oracle.prune(batch, q)));
  expect_near(c, got.out, oracle.attend(batch, q, got.blocks), output_tolerance(c), "attend");
}

}  // namespace bough::test
