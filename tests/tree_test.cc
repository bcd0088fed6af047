// tree: every body against the definition in double, for every kind of list, position and representative; planted keys are found.
#include "steps/tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "support/search_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Input;
using test::SearchDefinition;
using test::SequenceSpec;

struct TreeSpec {
  TreePlan tree;
  int64_t sinks = 64;
  int64_t window = 64;
  int list_heads = 1;
  Scan scan = Scan::relative;
  int64_t limit = 4096;

  int64_t n() const { return tree_branches(tree); }
};

TreePlan tree_of(int64_t branches, int key_block, int query_stride = 1, int key_stride = 1, Representative rep = Representative::center) {
  return {.k = branches * key_block, .query_stride = query_stride, .key_block = key_block, .key_stride = key_stride, .rep = rep};
}

struct Found {
  std::vector<int32_t> start;  // [nb, lh, n], -7 where nothing was written
  std::vector<int32_t> count;
  std::vector<int64_t> keys_read;
  std::vector<int64_t> w0;
  TreeSpec spec;

  std::vector<int32_t> list(int64_t block, int head) const {
    const auto from = start.begin() + (block * spec.list_heads + head) * spec.n();
    return {from, from + count[static_cast<size_t>(block)]};
  }
};

Found search(const AttentionBodies& body, const AttentionCase& c, const Input& input, const TreeSpec& spec, const RopeTable& rope,
             std::vector<uint8_t> active = {}) {
  Found found;
  found.spec = spec;
  const auto blocks = static_cast<size_t>(input.nb());
  if (active.empty()) active.assign(blocks, 1);
  for (const QueryBlock& b : input.batch.blocks) {
    found.w0.push_back(window_start(b.r0, b.r1(), spec.sinks, spec.window, spec.tree.key_block));
  }
  found.start.assign(blocks * static_cast<size_t>(spec.list_heads * spec.n()), -7);
  found.count.assign(blocks, -7);
  found.keys_read.assign(blocks, -7);
  auto args = test::args_of<TreeArgs>(c.shape(), input.batch, input.q, rope);
  args.active = active.data();
  args.w0 = found.w0.data();
  args.sinks = spec.sinks;
  args.tree = spec.tree;
  args.list_heads = spec.list_heads;
  args.scan = spec.scan;
  args.window = spec.window;
  args.trained_context = spec.limit;
  args.start = found.start.data();
  args.count = found.count.data();
  args.capacity = spec.n();
  args.keys_read = found.keys_read.data();
  body.tree(args);
  return found;
}

// The search as the papers write it: sets of key blocks, halved until they are single.
class Definition {
 public:
  Definition(const AttentionCase& c, const Input& input, const TreeSpec& spec, int64_t block, int list_head) : spec_(spec) {
    for (int h = 0; h < c.shape().kv_heads; ++h) {
      if (spec.list_heads > 1 && h != list_head) continue;
      heads_.emplace_back(c, input, block, h,
                          test::SearchSpec{spec.tree.query_stride, Pool::strided, spec.scan, spec.window, spec.limit, 2 * spec.n()});
    }
  }

  struct Result {
    std::vector<int32_t> starts;
    double closest = INFINITY;  // smallest difference that decided who is kept
    int64_t keys = 0;
  };
  Result run(int64_t w0) const {
    Result result;
    const int64_t blocks = (w0 - spec_.sinks) / spec_.tree.key_block, n = spec_.n();
    std::vector<Span> live;
    if (blocks <= n) {
      for (int64_t j = 0; j < blocks; ++j) live.push_back({j, j + 1});
    } else {
      const double grid = std::pow(2, std::floor(std::log2(blocks)));
      const auto step = static_cast<int64_t>(std::ceil(grid / static_cast<double>(n)));
      std::vector<int64_t> starts;
      for (int64_t j = 0; j < n; ++j) starts.push_back(std::min(blocks, j * blocks / n / step * step));
      starts.push_back(blocks);
      for (size_t j = 0; j + 1 < starts.size(); ++j) live.push_back({starts[j], starts[j + 1]});
    }
    while (std::any_of(live.begin(), live.end(), [](const Span& s) { return s.end - s.begin > 1; })) live = round(live, result);
    for (const Span& s : live) result.starts.push_back(static_cast<int32_t>(spec_.sinks + s.begin * spec_.tree.key_block));
    return result;
  }

 private:
  struct Span {
    int64_t begin;
    int64_t end;
    double score = 0;
  };

  std::vector<Span> round(const std::vector<Span>& live, Result& result) const {
    std::vector<Span> halves;
    for (const Span& s : live) {
      const int64_t middle = s.begin + (s.end - s.begin) / 2;
      for (const Span& half : {Span{s.begin, middle}, Span{middle, s.end}}) {
        if (half.end > half.begin) halves.push_back(half);
      }
    }
    for (size_t j = 0; j < halves.size(); ++j) halves[j].score = score(halves[j], static_cast<int64_t>(j), result);
    std::stable_sort(halves.begin(), halves.end(), [](const Span& x, const Span& y) { return x.score > y.score; });
    const auto n = static_cast<size_t>(spec_.n());
    if (halves.size() > n) {
      result.closest = std::min(result.closest, halves[n - 1].score - halves[n].score);
      halves.resize(n);
    }
    std::sort(halves.begin(), halves.end(), [](const Span& x, const Span& y) { return x.begin < y.begin; });
    return halves;
  }

  double score(const Span& s, int64_t j, Result& result) const {
    int64_t speaker = s.begin + (s.end - s.begin) / 2;
    if (spec_.tree.rep == Representative::first) speaker = s.begin;
    if (spec_.tree.rep == Representative::last) speaker = s.end - 1;
    double best = -INFINITY;
    for (const SearchDefinition& head : heads_) {
      for (int u = 0; u < spec_.tree.key_block; u += spec_.tree.key_stride) {
        best = std::max(best, head.best(spec_.sinks + speaker * spec_.tree.key_block + u, j, false));
        ++result.keys;
      }
    }
    return best;
  }

  TreeSpec spec_;
  std::vector<SearchDefinition> heads_;
};

std::vector<SequenceSpec> ragged() {
  return {{.length = 1333, .first_row = 1332, .decode = true},
          {.length = 140, .first_row = 139, .decode = true},
          {.length = 821, .first_row = 794, .tail = 2},
          {.length = 300, .first_row = 282}};
}

class TreeTest : public test::BodyTest {
 protected:
  // Of a score: what a difference that decides has to exceed.
  double tolerance() const { return GetParam().type == DType::f32 ? 2e-5 : 2e-3; }

  // Lists whose choice rounding may decide are left out; they must be few.
  void expect_defined(const CaseShape& shape, const std::vector<SequenceSpec>& sequences, const TreeSpec& spec, const std::string& what) {
    const AttentionCase c(shape, sequences, 82);
    const Input input = c.input();
    const Found found = search(body(), c, input, spec, c.rope(std::max(spec.window + 1, spec.limit)));
    for (int64_t b = 0; b < input.nb(); ++b) {
      int64_t keys = 0;
      bool fragile = false;
      for (int head = 0; head < spec.list_heads; ++head) {
        const auto want = Definition(c, input, spec, b, head).run(found.w0[static_cast<size_t>(b)]);
        keys += want.keys;
        fragile = fragile || want.closest < tolerance();
        ++(want.closest < tolerance() ? left_out_ : compared_);
        if (want.closest < tolerance()) continue;
        EXPECT_EQ(found.list(b, head), want.starts) << shape.name() << ", " << what << ", block " << b << ", list " << head;
      }
      if (!fragile) {
        EXPECT_EQ(found.keys_read[static_cast<size_t>(b)], keys) << what;
      }
    }
  }
  void TearDown() override { EXPECT_LE(left_out_, compared_ / 2) << "too many searches left out"; }

  int left_out_ = 0, compared_ = 0;
};

TEST_P(TreeTest, IsTheDefinitionForEveryTree) {
  const CaseShape small = {.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32};
  const std::vector<SequenceSpec> rows = {{.length = 900, .first_row = 899, .decode = true}, {.length = 700, .first_row = 683}};
  for (const Representative rep : {Representative::center, Representative::first, Representative::last}) {
    for (const int key_block : {1, 2, 8, 64}) {
      for (const int64_t branches : {1, 3, 8}) {
        const std::string what = "rep " + std::to_string(static_cast<int>(rep)) + ", key block " + std::to_string(key_block) + ", " +
                                 std::to_string(branches) + " branches";
        expect_defined(small, rows, {.tree = tree_of(branches, key_block, 2, 1, rep)}, what);
        if (key_block > 2) expect_defined(small, rows, {.tree = tree_of(branches, key_block, 16, key_block / 4, rep)}, what + ", strided");
      }
    }
  }
}

TEST_P(TreeTest, IsTheDefinitionForEveryKindOfPosition) {
  for (const Scan scan : {Scan::relative, Scan::chunk_indexed, Scan::infllm, Scan::dynamic_extend, Scan::self_extend}) {
    for (const int64_t limit : {72, 200, 4096}) {  // chunk indices are divided, true positions squeezed
      expect_defined({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32}, ragged(),
                     {.tree = tree_of(5, 8, 4), .scan = scan, .limit = limit},
                     "scan " + std::to_string(static_cast<int>(scan)) + ", limit " + std::to_string(limit));
    }
  }
}

TEST_P(TreeTest, IsTheDefinitionForEveryShapeOfHeads) {
  for (const int list_heads : {1, 2}) {
    for (const int d : {32, 80, 128}) {
      for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
        expect_defined({.type = GetParam().type, .heads = 6, .kv_heads = 2, .d = d, .layout = layout}, ragged(),
                       {.tree = tree_of(6, 4, 2), .sinks = 0, .list_heads = list_heads}, "ragged");
      }
    }
    expect_defined({.type = GetParam().type, .heads = 16, .kv_heads = 2, .d = 32}, ragged(),
                   {.tree = tree_of(4, 2, 2), .list_heads = list_heads}, "groups of 8");
  }
}

// With many branches rounding always decides for some of them: in bf16 nearly all have to be right, in f32 all.
TEST_P(TreeTest, IsTheDefinitionForManyBranches) {
  const AttentionCase c({.type = GetParam().type, .heads = 2, .kv_heads = 2, .d = 32},
                        {{.length = 3001, .first_row = 3000, .decode = true}}, 81);
  const Input input = c.input();
  const TreeSpec spec = {.tree = tree_of(150, 2)};
  const Found found = search(body(), c, input, spec, c.rope(128));
  const std::vector<int32_t> want = Definition(c, input, spec, 0, 0).run(found.w0[0]).starts, got = found.list(0, 0);
  std::vector<int32_t> both;
  std::set_intersection(want.begin(), want.end(), got.begin(), got.end(), std::back_inserter(both));
  EXPECT_GE(both.size(), GetParam().type == DType::f32 ? 150u : 142u);
}

// k key blocks exactly: distinct, ascending, whole and inside [sinks, w0), for every number of candidates.
TEST_P(TreeTest, KeepsExactlyNDistinctBlocks) {
  const CaseShape one = {.type = GetParam().type, .heads = 1, .kv_heads = 1, .d = 32, .layers = 1, .layer = 0};
  for (const int64_t branches : {1, 2, 5, 7, 16}) {
    for (int64_t length = 140; length < 340; length += 13) {
      const AttentionCase c(one, {{.length = length, .first_row = length - 1, .decode = true}}, 83);
      const TreeSpec spec = {.tree = tree_of(branches, 4)};
      const Found found = search(body(), c, c.input(), spec, c.rope(128));
      const int64_t blocks = (found.w0[0] - spec.sinks) / 4;
      const auto list = found.list(0, 0);
      ASSERT_EQ(static_cast<int64_t>(list.size()), std::min(branches, blocks)) << "length " << length << ", " << branches << " branches";
      EXPECT_TRUE(std::is_sorted(list.begin(), list.end(), std::less_equal<>()));
      for (const int32_t start : list) {
        EXPECT_EQ(start % 4, 0);
        EXPECT_GE(start, spec.sinks);
        EXPECT_LT(start, found.w0[0]);
      }
    }
  }
}

TEST_P(TreeTest, EverythingIsSelectedWhileItFits) {
  const AttentionCase c(shape(), {{.length = 208, .first_row = 192}}, 84);
  const TreeSpec spec = {.tree = tree_of(20, 4), .list_heads = 2};
  const Found found = search(body(), c, c.input(), spec, c.rope(128));
  std::vector<int32_t> all(16);  // [64, 128): 193 - 64 = 129, rounded down to 4
  for (size_t j = 0; j < all.size(); ++j) all[j] = 64 + 4 * static_cast<int32_t>(j);
  EXPECT_EQ(found.list(0, 0), all);
  EXPECT_EQ(found.list(0, 1), all);
  EXPECT_EQ(found.keys_read[0], 0) << "nothing to choose, nothing to read";
}

TEST_P(TreeTest, InactiveBlocksAreLeftAlone) {
  const AttentionCase c(shape(), ragged(), 85);
  const Input input = c.input();
  const TreeSpec spec = {.tree = tree_of(6, 4), .list_heads = 2};
  const RopeTable rope = c.rope(128);
  const Found all = search(body(), c, input, spec, rope);
  std::vector<uint8_t> active;
  for (int64_t b = 0; b < input.nb(); ++b) active.push_back(b % 2 == 0);
  const Found some = search(body(), c, input, spec, rope, active);
  for (int64_t b = 0; b < input.nb(); ++b) {
    const auto from = some.start.begin() + b * 12;
    if (b % 2 == 0) {
      EXPECT_EQ(some.list(b, 0), all.list(b, 0)) << "block " << b;
      EXPECT_EQ(some.list(b, 1), all.list(b, 1)) << "block " << b;
    } else {
      EXPECT_EQ(std::count(from, from + 12, -7), 12) << "block " << b;
      EXPECT_EQ(some.count[static_cast<size_t>(b)], -7) << "block " << b;
    }
  }
}

TEST_P(TreeTest, SameListsAloneAndForEveryNumberOfThreads) {
  const AttentionCase c(shape(), ragged(), 86);
  for (const int list_heads : {1, 2}) {
    const TreeSpec spec = {.tree = tree_of(70, 2, 4), .list_heads = list_heads, .scan = Scan::chunk_indexed};
    const RopeTable rope = c.rope(4096);
    const Found together = search(body(), c, c.input(), spec, rope);
    for (const int threads : {1, 2, 3}) {
      test::with_threads(threads, [&] { EXPECT_EQ(search(body(), c, c.input(), spec, rope).start, together.start) << threads; });
    }
    int64_t block = 0;
    for (int sequence = 0; sequence < 4; ++sequence) {
      const Input input = c.alone(sequence);
      const Found alone = search(body(), c, input, spec, rope);
      for (int64_t b = 0; b < input.nb(); ++b, ++block) {
        for (int head = 0; head < list_heads; ++head) EXPECT_EQ(alone.list(b, head), together.list(block, head)) << "sequence " << sequence;
      }
    }
  }
}

// Of equal scores the lower start wins, in every round.
TEST_P(TreeTest, TiesGoToTheLowerStart) {
  AttentionCase c(shape(), {{.length = 400, .first_row = 399, .decode = true}}, 87);
  const std::vector<float> key(64, 0.5F);
  for (int64_t token = 0; token < 400; ++token) {
    for (int head = 0; head < 2; ++head) c.set_key(0, token, head, key);
  }
  for (const Representative rep : {Representative::center, Representative::first, Representative::last}) {
    const Found found = search(body(), c, c.input(), {.tree = tree_of(3, 8, 1, 1, rep)}, c.rope(128, 0));
    EXPECT_EQ(found.list(0, 0), (std::vector<int32_t>{64, 72, 80}));
  }
}

// Two hills of keys, one a KV head: a list of its own climbs its own, a shared one both.
TEST_P(TreeTest, FindsTheTopsOfHills) {
  CaseShape shape = this->shape();
  shape.heads = shape.kv_heads = 2;
  AttentionCase c(shape, {{.length = 3000, .first_row = 2999, .decode = true}}, 88);
  Input input = c.input();
  std::fill(input.q.begin(), input.q.end(), 0.0F);
  input.q[0] = input.q[64] = 8.0F;  // of both heads; scaled to 1
  const int64_t tops[2] = {1111, 2222};
  for (int64_t token = 0; token < 3000; ++token) {
    for (int head = 0; head < 2; ++head) {
      std::vector<float> key(64);
      key[0] = 2.0F - static_cast<float>(std::abs(token - tops[head])) / 256.0F;
      c.set_key(0, token, head, key);
    }
  }
  for (const int list_heads : {1, 2}) {
    const Found found = search(body(), c, input, {.tree = tree_of(8, 4), .list_heads = list_heads}, c.rope(128, 0));
    for (int head = 0; head < 2; ++head) {
      const auto list = found.list(0, head % list_heads);
      EXPECT_TRUE(std::binary_search(list.begin(), list.end(), tops[head] / 4 * 4)) << list_heads << " lists, head " << head;
      if (list_heads == 2) {
        EXPECT_GE(list.front(), tops[head] - 40) << "all of it near the top";
        EXPECT_LE(list.back(), tops[head] + 40) << "all of it near the top";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, TreeTest, testing::ValuesIn(test::body_cases()), test::body_case_name);

TEST(FirstBranches, AreSnappedToAGrid) {
  const auto starts = [](int64_t n, int64_t blocks) {
    std::vector<int64_t> all;
    for (int64_t j = 0; j <= n; ++j) all.push_back(first_branch_start(j, n, blocks));
    return all;
  };
  EXPECT_EQ(starts(4, 8), (std::vector<int64_t>{0, 2, 4, 6, 8}));
  EXPECT_EQ(starts(4, 12), (std::vector<int64_t>{0, 2, 6, 8, 12}));  // grid 8: steps of 2
  EXPECT_EQ(starts(4, 13), (std::vector<int64_t>{0, 2, 6, 8, 13}));
  EXPECT_EQ(starts(3, 4), (std::vector<int64_t>{0, 0, 2, 4})) << "a branch may be empty";
  EXPECT_EQ(starts(4, 5), (std::vector<int64_t>{0, 1, 2, 3, 5}));
}

TEST(FirstBranches, CoverAllBlocksInOrder) {
  for (int64_t n = 1; n < 40; n += 3) {
    for (int64_t blocks = n + 1; blocks < 500; blocks += 7) {
      EXPECT_EQ(first_branch_start(0, n, blocks), 0);
      EXPECT_EQ(first_branch_start(n, n, blocks), blocks);
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_LE(first_branch_start(j, n, blocks), first_branch_start(j + 1, n, blocks)) << n << " branches, " << blocks << " blocks";
      }
    }
  }
}

}  // namespace
}  // namespace bough
