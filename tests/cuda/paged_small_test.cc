// Tiny texts and plans through every call, for compute-sanitizer: --gtest_filter='*Small*', best with BOUGH_CUDA_GUARD=0.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

class PagedSmall : public testing::TestWithParam<PagedSpec> {};

TEST_P(PagedSmall, Prefill) { expect_oracles_prefill(PagedCase(GetParam())); }

TEST_P(PagedSmall, Decode) {
  const PagedCase c(GetParam(), 9);
  BOUGH_MAKE_RUN(run, c);
  const Oracle oracle(c);
  std::vector<DecodeOracle> oracles;
  oracles.reserve(3);
  for (int i = 0; i < 3; ++i) oracles.emplace_back(oracle, i);
  DecodeRun decode(c, run, 3);
  for (int step = 0; step < 9; ++step) {
    std::vector<DecodeRow> rows;
    rows.reserve(3);
    for (int i = 0; i < 3; ++i) rows.push_back({i, c.spec().texts[static_cast<size_t>(i)].length + step, step, 2 - i});
    const Output out = decode.step(rows);
    for (int i = 0; i < 3; ++i) {
      const DecodeOracle::Step want = oracles[static_cast<size_t>(i)].step(rows[static_cast<size_t>(i)].length);
      if (want.doubtful) continue;
      expect_near(c, rows_of(out, c.shape(), i, 1), want.out, output_tolerance(c),
                  "text " + std::to_string(i) + ", step " + std::to_string(step));
    }
  }
}

std::vector<PagedSpec> small_specs() {
  using enum ElementType;
  std::vector<PagedSpec> specs;
  for (const KernelTier tier : {KernelTier::best, KernelTier::portable}) {
    for (PagedSpec spec : {small_spec(bf16, bf16, 8), small_spec(bf16, e4m3, 16), small_spec(f16, f16, 16), small_spec(bf16, i8, 8),
                           small_spec(bf16, bf16, 64)}) {
      if (spec.shape.page_tokens == 64) {
        spec.layout = Layout::contiguous;
        spec.plan.lists = Lists::kv_head;
        spec.shape.heads = 6;
        spec.shape.kv_heads = 2;
      }
      if (spec.shape.page_tokens == 8) {
        specs.push_back(spec);
        specs.back().plan =
            stages_plan(0, 32,
                        {{.chunk = 16, .query_block = 64, .query_stride = 4, .piece = 8},
                         {.chunk = 8, .keep = 64, .query_block = 64, .query_stride = 1, .piece = 1, .row_piece = 8, .row_keep = 96}},
                        32);
        specs.back().plan.tail = 3;
        specs.back().tier = tier;
        specs.back().name += tier == KernelTier::best ? "_pieces" : "_pieces_portable";
      }
      if (spec.shape.page_tokens == 16 && spec.shape.q_type == bf16) {
        specs.push_back(spec);
        specs.back().plan = tree_plan(0, 32, {.k = 32, .key_block = 2});
        specs.back().plan.tail = 3;
        specs.back().tier = tier;
        specs.back().name += tier == KernelTier::best ? "_tree" : "_tree_portable";
      }
      spec.tier = tier;
      spec.name += tier == KernelTier::best ? "" : "_portable";
      specs.push_back(std::move(spec));
    }
  }
  return specs;
}

INSTANTIATE_TEST_SUITE_P(Tiny, PagedSmall, testing::ValuesIn(small_specs()), spec_name);

}  // namespace
}  // namespace bough::test
