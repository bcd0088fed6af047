// Summaries of keys: searches with one find what they find without, and read nothing of the cache in the rounds that it is for.
#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "cuda/elements.h"
#include "cuda/paged_fixture.h"
#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

constexpr int kSteps = 20;
constexpr int kShortPage = 16;  // one row of the summary

PagedSpec without_summary(PagedSpec spec) {
  spec.summary_step = 0;
  return spec;
}

class PagedSummary : public testing::TestWithParam<PagedSpec> {};

TEST_P(PagedSummary, PrefillsAreTheSame) {
  const PagedCase with(GetParam()), without(without_summary(GetParam()));
  BOUGH_MAKE_RUN(summary, with);
  BOUGH_MAKE_RUN(plain, without);
  const PagedRun::Prefill got = summary.prefill(with.parts()), want = plain.prefill(without.parts());
  EXPECT_EQ(got.blocks, want.blocks);
  EXPECT_TRUE(same_bits(got.out, want.out));
}

std::vector<PagedSpec> prefills() {
  std::vector<PagedSpec> all = grid();
  for (const PagedSpec& spec : specials()) all.push_back(spec);
  return with_summaries(all);
}
INSTANTIATE_TEST_SUITE_P(Grid, PagedSummary, testing::ValuesIn(prefills()), spec_name);

class PagedSummaryDecode : public testing::TestWithParam<PagedSpec> {};

// Text i joins at step i.
TEST_P(PagedSummaryDecode, StepsAreTheSame) {
  const PagedCase with(GetParam(), kSteps), without(without_summary(GetParam()), kSteps);
  BOUGH_MAKE_RUN(summary, with);
  BOUGH_MAKE_RUN(plain, without);
  const int texts = static_cast<int>(with.spec().texts.size());
  DecodeRun got(with, summary, texts), want(without, plain, texts);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<DecodeRow> rows;
    for (int i = 0; i < texts && i <= step; ++i) {
      rows.push_back({i, with.spec().texts[static_cast<size_t>(i)].length + step - i, step - i, i});
    }
    ASSERT_TRUE(same_bits(got.step(rows), want.step(rows))) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, PagedSummaryDecode, testing::ValuesIn(with_summaries(decode_grid())), spec_name);

// One text whose keys are zero but for decoys: large keys at every token of the cache that the summary has too. A search that reads
// any of them in the summary's rounds sees a decoy in each chunk, and not the one key that is planted. Where nothing stands out a search
// takes the right half, so that later rounds look at no decoy.
struct PlantedSpec {
  std::string name;
  int rows = 1;
  int group = 4;
  Scan scan = Scan::relative;
  KernelTier tier = KernelTier::best;
  ElementType kv = ElementType::bf16;
  int64_t longest = 4096;  // what the call says, which chooses among kernels of one row
  int page_tokens = 64;
};
std::ostream& operator<<(std::ostream& out, const PlantedSpec& spec) { return out << spec.name; }

class PagedSummaryRounds : public testing::TestWithParam<PlantedSpec> {
 protected:
  static constexpr int kKvHeads = 2, kDim = 64, kStep = 16, kChunk = 256;
  static constexpr int64_t kLength = 3328, kSinks = 256;
  static constexpr size_t kElement = 40;  // of the queries and keys that are not zero: RoPE turns others

  const PlantedSpec& spec() const { return GetParam(); }
  int64_t pages() const { return kLength / spec().page_tokens; }
  size_t row(int64_t page_rows, int64_t token_row, int head) const {
    const int64_t page = pages() - 1 - token_row / page_rows;
    return static_cast<size_t>((page * page_rows + token_row % page_rows) * kKvHeads + head);
  }
  PagedPlane plane(const DeviceBuffer& data, const DeviceBuffer& scale, int64_t rows) const {
    PagedPlane p;
    p.data = data.data();
    p.strides = {rows * kKvHeads * kDim, kKvHeads * kDim, kDim};
    if (spec().kv == ElementType::bf16) return p;
    p.scale = scale.as<float>();
    p.scale_strides = {rows * kKvHeads, kKvHeads, 1};
    return p;
  }

  // The chunks that each block chose when `token` of the cache or the summary has a key that the queries like; -1: none has.
  std::vector<int32_t> chosen(const PagedAttention& attention, int64_t token, bool in_summary) const {
    const int64_t rows = spec().page_tokens, summary_rows = rows / kStep;
    std::vector<std::byte> k(static_cast<size_t>(pages() * rows) * kKvHeads * kDim * element_bytes(spec().kv));
    std::vector<std::byte> summary(k.size() / kStep);
    std::vector<float> scale(static_cast<size_t>(pages() * rows) * kKvHeads, 1.0F), summary_scale(scale.size() / kStep, 0.5F);
    for (int head = 0; head < kKvHeads; ++head) {
      for (int64_t t = 0; t < kLength; t += kStep) {
        store(spec().kv, k.data(), row(rows, t, head) * kDim + kElement, 100);
        scale[row(rows, t, head)] = std::numeric_limits<float>::quiet_NaN();
      }
      if (token < 0) continue;
      if (in_summary) {
        store(spec().kv, summary.data(), row(summary_rows, token / kStep, head) * kDim + kElement, 8);
      } else {
        store(spec().kv, k.data(), row(rows, token, head) * kDim + kElement, 8);
      }
    }
    const int heads = kKvHeads * spec().group;
    std::vector<std::byte> q(static_cast<size_t>(spec().rows * heads) * kDim * 2);
    for (size_t r = 0; r < static_cast<size_t>(spec().rows * heads); ++r) store(ElementType::bf16, q.data(), r * kDim + kElement, 1);
    std::vector<int32_t> table;
    for (int64_t page = pages(); page > 0; --page) table.push_back(static_cast<int32_t>(page - 1));
    const auto on_device = [](const auto& x) {
      DeviceBuffer buffer(x.size() * sizeof(x[0]));
      buffer.upload(x);
      return buffer;
    };
    const DeviceBuffer keys = on_device(k), thin = on_device(summary), scales = on_device(scale), thin_scales = on_device(summary_scale);
    const DeviceBuffer queries = on_device(q), pages_of = on_device(table), lengths = on_device(std::vector<int32_t>{kLength});
    const DeviceBuffer start = on_device(std::vector<int32_t>{0, spec().rows});
    const DeviceBuffer workspace(attention.workspace_bytes(), std::byte{0});
    PagedCache cache;
    cache.k = cache.v = plane(keys, scales, rows);
    cache.page_table = pages_of.as<int32_t>();
    cache.table_stride = pages();
    cache.summary = plane(thin, thin_scales, summary_rows);
    cache.summary_step = kStep;
    const PagedBatch batch{1, spec().rows, start.as<int32_t>(), lengths.as<int32_t>(), spec().longest};
    const Stream stream;
    const Status pruned = attention.prune(batch, {queries.data(), heads * kDim, kDim}, cache, workspace.data(), stream.get());
    EXPECT_TRUE(pruned.ok()) << pruned.message();
    stream.wait();
    return lists(attention.selection(workspace.data()));
  }
  static std::vector<int32_t> lists(const PagedSelection& s) {
    const auto nb = static_cast<size_t>(s.nb), capacity = static_cast<size_t>(s.capacity);
    const std::vector<int32_t> blocks = download(s.blocks, nb * 8), counts = download(s.counts, nb * 4);
    const std::vector<int32_t> starts = download(s.starts, nb * capacity);
    std::vector<int32_t> firsts;
    for (size_t b = 0; b < nb; ++b) {
      if (blocks[8 * b + 2] == 0) continue;
      EXPECT_EQ(counts[4 * b], 1);
      firsts.push_back(starts[b * capacity]);
    }
    return firsts;
  }
};

TEST_P(PagedSummaryRounds, ReadTheSummaryAndLaterOnesTheCache) {
  PagedShape shape = shape_of(kKvHeads * spec().group, kKvHeads, kDim, ElementType::bf16, spec().kv);
  shape.page_tokens = spec().page_tokens;
  set_rope(shape, 16, RopePairs::halves);
  AttentionPlan plan = stages_plan(kSinks, 512, {{kChunk, 0, 64, 1}}, kChunk);
  plan.scan = spec().scan;
  plan.tail = 0;
  auto made = PagedAttention::create(plan, 0, shape, {spec().rows, 1, spec().longest}, spec().tier);
  if (!made.ok() && made.status().code() == Code::unsupported) GTEST_SKIP() << made.status().message();
  ASSERT_TRUE(made.ok()) << made.status().message();
  const auto expect = [&](int64_t token, bool in_summary, int64_t start) {
    const std::vector<int32_t> got = chosen(*made, token, in_summary);
    EXPECT_FALSE(got.empty());
    for (const int32_t first : got) EXPECT_EQ(first, start) << "token " << token << (in_summary ? " of the summary" : " of the cache");
  };
  const int64_t start = kSinks + 3 * kChunk;
  expect(-1, false, kSinks);  // ties go to the lowest
  for (const int64_t offset : {64, 192, 160, 224, 208, 240}) expect(start + offset, true, start);
  for (const int64_t offset : {232, 248}) expect(start + offset, false, start);  // the round over 32 tokens
}

std::vector<PlantedSpec> planted() {
  const int64_t long_text = 1 << 20;
  std::vector<PlantedSpec> all;
  const auto add = [&](const std::string& name) -> PlantedSpec& {
    all.push_back({name});
    return all.back();
  };
  add("one_row");
  add("one_row_of_many").longest = long_text;
  add("one_row_turned").scan = Scan::chunk_indexed;
  for (const int group : {8, 16}) {
    add("one_row_group_" + std::to_string(group)).group = group;
    add("one_row_of_many_group_" + std::to_string(group)).group = group;
    all.back().longest = long_text;
  }
  add("one_row_short_pages").page_tokens = kShortPage;
  for (const int64_t longest : {int64_t{4096}, long_text}) {
    add("one_row_e4m3_" + std::to_string(longest)).kv = ElementType::e4m3;
    all.back().longest = longest;
  }
  for (const KernelTier tier : {KernelTier::best, KernelTier::portable}) {
    const std::string suffix = tier == KernelTier::best ? "" : "_portable";
    for (const int group : {1, 16}) {
      add("rows_group_" + std::to_string(group) + suffix).group = group;
      all.back().rows = 100;
      all.back().tier = tier;
    }
    add("rows_e4m3" + suffix).kv = ElementType::e4m3;
    all.back().rows = 100;
    all.back().tier = tier;
  }
  add("rows_turned").scan = Scan::dynamic_extend;
  all.back().rows = 100;
  add("rows_short_pages").page_tokens = kShortPage;
  all.back().rows = 70;
  return all;
}

INSTANTIATE_TEST_SUITE_P(Kernels, PagedSummaryRounds, testing::ValuesIn(planted()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bough::test
