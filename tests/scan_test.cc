// scan: every body against the definition in double, for every size of chunk, kind of pooling and scan; planted keys win.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "support/search_case.h"

namespace bough {
namespace {

using test::AttentionCase;
using test::CaseShape;
using test::Grid;
using test::Input;
using test::ScanDefinition;
using test::ScanSpec;
using test::SequenceSpec;

class ScanTest : public test::BodyTest {
 protected:
  // Absolute, for keys and queries of unit variance. A turned bf16 key or query may round the other way.
  double tolerance() const { return GetParam().type == DType::f32 ? 1e-5 : 2e-3; }

  // Chunks whose descent took a turn that rounding may decide are left out; they must be few.
  void expect_defined(const CaseShape& shape, const std::vector<SequenceSpec>& sequences, const ScanSpec& spec,
                      const std::string& what) const {
    const AttentionCase c(shape, sequences, 62);
    const Input input = c.input();
    const Grid grid = candidates_of(input.batch, spec);
    const auto got = scan(body(), c, input, grid, c.rope(std::max(spec.window + 2, spec.limit)));
    int left_out = 0;
    int compared = 0;
    double worst = 0;
    for (int64_t b = 0; b < input.nb(); ++b) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        const ScanDefinition definition(c, input, grid, b, head);
        for (int64_t j = 0; j < spec.most; ++j) {
          const float score = got[static_cast<size_t>((b * shape.kv_heads + head) * spec.most + j)];
          if (j >= grid.count[static_cast<size_t>(b)]) {
            ASSERT_EQ(score, 7.0F) << "written past the candidates; " << what;
            continue;
          }
          const auto want = definition.score(grid.view().at(b, head, j), j);
          const bool fragile = want.closest < 2 * tolerance();
          (fragile ? left_out : compared) += 1;
          if (!fragile) worst = std::max(worst, std::abs(want.score - double{score}));
        }
      }
    }
    EXPECT_LE(worst, tolerance()) << shape.name() << ", " << what;
    EXPECT_GT(compared, 0) << what;
    EXPECT_LE(left_out, 2 + (compared + left_out) / 20) << shape.name() << ", " << what;
  }
};

std::vector<SequenceSpec> ragged() {
  return {
      {.length = 333, .first_row = 332, .decode = true}, {.length = 421, .first_row = 394, .tail = 2}, {.length = 300, .first_row = 282}};
}

TEST_P(ScanTest, IsTheDefinitionForEveryChunk) {
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed}) {
    for (const int chunk : {1, 2, 4, 8, 16, 32, 64, 128, 256}) {
      ScanSpec spec = {.chunk = chunk, .scan = kind};
      const std::string what = (kind == Scan::relative ? "relative, chunk " : "chunk-indexed, chunk ") + std::to_string(chunk);
      expect_defined(shape(), {{.length = 900, .first_row = 890}}, spec, what);
      spec.grid = false;
      expect_defined(shape(), {{.length = 650, .first_row = 649, .decode = true}}, spec, what + ", listed");
    }
  }
}

TEST_P(ScanTest, IsTheDefinitionForEveryNumberOfRounds) {
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed}) {
    for (const int chunk : {1, 2, 8, 64}) {
      for (int rounds = 1; chunk >> (rounds - 1) > 0; ++rounds) {
        ScanSpec spec = {.chunk = chunk, .scan = kind, .rounds = rounds};
        const std::string what = "chunk " + std::to_string(chunk) + ", rounds " + std::to_string(rounds);
        expect_defined(shape(), {{.length = 900, .first_row = 890}}, spec, what);
        spec.grid = false;
        expect_defined(shape(), {{.length = 650, .first_row = 649, .decode = true}}, spec, what + ", listed");
      }
    }
  }
}

TEST_P(ScanTest, IsTheDefinitionForEveryPiece) {
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed, Scan::infllm, Scan::dynamic_extend}) {
    for (const auto& [chunk, piece] : {std::pair{1, 1}, {8, 1}, {8, 8}, {64, 8}, {32, 2}}) {
      ScanSpec spec = {.chunk = chunk, .stride = 8, .scan = kind, .limit = 512, .piece = piece};
      const std::string what = "chunk " + std::to_string(chunk) + ", piece " + std::to_string(piece);
      // Blocks of one text share its candidates; the last rows stand alone.
      expect_defined(shape(), {{.length = 333, .first_row = 332, .decode = true}, {.length = 900, .first_row = 700, .tail = 3}}, spec,
                     what);
      spec.grid = false;
      expect_defined(shape(), {{.length = 650, .first_row = 600, .tail = 2}}, spec, what + ", listed");
    }
  }
}

TEST_P(ScanTest, IsTheDefinitionForEveryPooling) {
  for (const Pool pool : {Pool::mean, Pool::strided, Pool::all}) {
    for (const int stride : {1, 4, 16}) {
      for (const int64_t block : {1, 17, 64}) {
        // Blocks begin and end in the middle of a stride group.
        const std::vector<SequenceSpec> rows = {{.length = 245, .first_row = block == 1 ? 241 : 202, .block = block}};
        expect_defined(
            {.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32}, rows,
            {.chunk = 8, .most = 12, .stride = stride, .pool = pool, .window = 100},
            "pool " + std::to_string(static_cast<int>(pool)) + ", stride " + std::to_string(stride) + ", block " + std::to_string(block));
      }
    }
  }
}

// True positions, squeezed or grouped where the text is longer than the limit; groups of rows that stand at their own positions.
TEST_P(ScanTest, IsTheDefinitionForEveryKindOfPosition) {
  const CaseShape small = {.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = 32};
  for (const Scan kind : {Scan::infllm, Scan::dynamic_extend, Scan::self_extend}) {
    const std::string what = "scan " + std::to_string(static_cast<int>(kind));
    for (const int chunk : {1, 8, 64}) {
      expect_defined(small, {{.length = 900, .first_row = 890}}, {.chunk = chunk, .scan = kind, .limit = 256}, what + ", long");
      expect_defined(small, {{.length = 650, .first_row = 649, .decode = true}}, {.chunk = chunk, .scan = kind}, what + ", short");
    }
    for (const Pool pool : {Pool::mean, Pool::strided, Pool::all}) {
      expect_defined(small, ragged(),
                     {.chunk = 8, .sinks = 64, .grid = false, .most = 20, .stride = 4, .pool = pool, .scan = kind, .limit = 160},
                     what + ", ragged, pool " + std::to_string(static_cast<int>(pool)));
    }
  }
}

TEST_P(ScanTest, IsTheDefinitionForEveryShapeOfHeads) {
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed}) {
    const ScanSpec spec = {.chunk = 16, .sinks = 64, .most = 10, .stride = 4, .scan = kind};
    for (const int d : {32, 64, 80, 96, 128}) {
      for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::halves}) {
        expect_defined({.type = GetParam().type, .heads = 3, .kv_heads = 1, .d = d, .layout = layout}, ragged(), spec, "ragged");
      }
    }
    for (const int group : {1, 3, 8}) {
      expect_defined({.type = GetParam().type, .heads = 2 * group, .kv_heads = 2, .d = 32}, ragged(), spec, "ragged");
    }
  }
}

TEST_P(ScanTest, IsTheDefinitionForListsOfEveryKvHead) {
  expect_defined(shape(), ragged(), {.chunk = 8, .sinks = 64, .grid = false, .most = 20, .list_heads = 2}, "lists");
  expect_defined({.type = GetParam().type, .heads = 2, .d = 32}, ragged(),
                 {.chunk = 1, .sinks = 64, .grid = false, .most = 200, .list_heads = 2}, "long lists");
}

TEST_P(ScanTest, IndicesAreDividedToFitTheLimit) {
  const CaseShape shape = {.type = GetParam().type, .heads = 2, .kv_heads = 1, .d = 32};
  const std::vector<SequenceSpec> rows = {{.length = 700, .first_row = 695}};
  for (const int64_t limit : {32, 64, 96, 100, 104, 105, 128}) {  // 87 candidates
    ScanSpec spec = {.chunk = 8, .most = 100, .scan = Scan::chunk_indexed, .window = 16, .limit = limit};
    expect_defined(shape, rows, spec, "limit " + std::to_string(limit));
  }
  EXPECT_EQ(chunk_indexing(87, 16, 104, 695).divisor, 1);
  EXPECT_EQ(chunk_indexing(87, 16, 103, 695).divisor, 2);
  EXPECT_EQ(chunk_indexing(87, 16, 104, 695).query, 103);
  EXPECT_EQ(chunk_indexing(87, 16, 103, 695).query, 60);
  EXPECT_EQ(chunk_indexing(87, 16, 104, 50).query, 50);
  EXPECT_EQ(chunk_indexing(0, 16, 104, 50).query, 16);
}

TEST_P(ScanTest, MoreCandidatesThanAThreadTakes) {
  const CaseShape shape = {.type = GetParam().type, .heads = 1, .kv_heads = 1, .d = 32, .layers = 1, .layer = 0};
  for (const int64_t length : {5000, 4999}) {
    expect_defined(shape, {{.length = length, .first_row = length - 1, .decode = true}}, {.chunk = 8, .most = 700}, "decode");
  }
  expect_defined(shape, {{.length = 5000, .first_row = 4970}}, {.chunk = 2, .most = 2300}, "prefill");
}

TEST_P(ScanTest, InactiveBlocksAreLeftAlone) {
  const AttentionCase c(shape(), ragged(), 63);
  const Input input = c.input();
  const ScanSpec spec = {.chunk = 16, .most = 30};
  Grid grid = candidates_of(input.batch, spec);
  const RopeTable rope = c.rope(4096);
  const auto all = scan(body(), c, input, grid, rope);
  const auto width = static_cast<size_t>(2 * spec.most);
  for (size_t b = 0; b < grid.active.size(); ++b) grid.active[b] = b % 2 == 0;
  const auto some = scan(body(), c, input, grid, rope);
  for (size_t b = 0; b < grid.active.size(); ++b) {
    const auto block = std::span(some).subspan(b * width, width);
    if (b % 2 == 0) {
      EXPECT_TRUE(test::same_bits(block, std::span(all).subspan(b * width, width))) << "block " << b;
    } else {
      EXPECT_EQ(std::count(block.begin(), block.end(), 7.0F), static_cast<ptrdiff_t>(width)) << "block " << b;
    }
  }
}

TEST_P(ScanTest, SameBitsAloneAndForEveryNumberOfThreads) {
  const AttentionCase c(shape(), ragged(), 64);
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed, Scan::dynamic_extend}) {
    for (const auto& [piece, grid] : {std::pair{0, true}, {1, true}, {1, false}, {2, true}, {2, false}}) {
      SCOPED_TRACE("piece " + std::to_string(piece) + (grid ? "" : ", listed"));
      const ScanSpec spec = {.chunk = 4, .grid = grid, .most = 77, .stride = 4, .scan = kind, .limit = 128, .piece = piece};
      const RopeTable rope = c.rope(4096);
      const Input together = c.input();
      const auto batch = scan(body(), c, together, candidates_of(together.batch, spec), rope);
      for (const int threads : {1, 2, 3}) {
        test::with_threads(threads, [&] {
          EXPECT_TRUE(test::same_bits(scan(body(), c, together, candidates_of(together.batch, spec), rope), batch))
              << threads << " threads";
        });
      }
      size_t from = 0;
      for (int sequence = 0; sequence < 3; ++sequence) {
        const Input input = c.alone(sequence);
        const auto alone = scan(body(), c, input, candidates_of(input.batch, spec), rope);
        EXPECT_TRUE(test::same_bits(alone, std::span(batch).subspan(from, alone.size()))) << "sequence " << sequence;
        from += alone.size();
      }
    }
  }
}

// A hill of similar keys around one token: the descent climbs it, the token's own score comes out, and its chunk wins.
TEST_P(ScanTest, FindsTheTopOfAHillOfKeys) {
  CaseShape shape = this->shape();
  shape.heads = shape.kv_heads = 2;
  for (const int chunk : {1, 2, 8, 64, 256}) {
    AttentionCase c(shape, {{.length = 1500, .first_row = 1499, .decode = true}}, 65);
    Input input = c.input();
    std::fill(input.q.begin(), input.q.end(), 0.0F);
    input.q[0] = 8.0F;   // head 0; scaled to 1
    input.q[64] = 8.0F;  // head 1
    const std::vector<float> flat(64);
    const int64_t tops[2] = {1024 + 201 % chunk, 512 + 3 * chunk / 4};
    for (int64_t token = 0; token < 1500; ++token) {
      for (int head = 0; head < 2; ++head) {
        std::vector<float> key = flat;
        const int64_t distance = std::abs(token - tops[head]);
        if (token / chunk == tops[head] / chunk) key[0] = 1.0F - static_cast<float>(distance) / 256.0F;
        c.set_key(0, token, head, key);
      }
    }
    const ScanSpec spec = {.chunk = chunk, .most = 1499 / chunk};
    const auto scores = scan(body(), c, input, candidates_of(input.batch, spec), c.rope(128, 0));
    for (int head = 0; head < 2; ++head) {
      const auto row = std::span(scores).subspan(static_cast<size_t>(head * spec.most), static_cast<size_t>(spec.most));
      const auto top = std::max_element(row.begin(), row.end());
      EXPECT_EQ(top - row.begin(), tops[head] / chunk) << "chunk " << chunk << " head " << head;
      EXPECT_EQ(*top, 1.0F) << "chunk " << chunk << " head " << head;
    }
  }
}

// With equal keys the descent goes right in every round: it ends at the chunk's last key and never sees the second.
TEST_P(ScanTest, TiesGoRight) {
  AttentionCase c(shape(), {{.length = 400, .first_row = 399, .decode = true}}, 67);
  Input input = c.input();
  std::fill(input.q.begin(), input.q.end(), 8.0F);
  std::vector<float> key(64);
  for (int64_t token = 0; token < 400; ++token) c.set_key(0, token, 0, key);
  key[0] = 2.0F;
  c.set_key(0, 63, 0, key);   // the last key of chunk 0
  c.set_key(0, 65, 0, key);   // the second of chunk 1
  c.set_key(0, 188, 0, key);  // chunk 2: the right centre of its last sixteen
  const ScanSpec spec = {.chunk = 64, .most = 4};
  const auto scores = scan(body(), c, input, candidates_of(input.batch, spec), c.rope(128, 0));
  EXPECT_EQ(std::vector<float>(scores.begin(), scores.begin() + 4), (std::vector<float>{2, 0, 2, 0}));
}

// One huge key where the first round looks.
TEST_P(ScanTest, APlantedKeyAtAQuarterPointWins) {
  // A score of 93 and what the key loses in its type.
  const double planted = GetParam().type == DType::f32    ? 1e-3
                         : GetParam().type == DType::bf16 ? 0.3
                         : GetParam().type == DType::i8   ? 0.6
                                                          : 6;
  for (const Scan kind : {Scan::relative, Scan::chunk_indexed}) {
    for (const int64_t probe : {3, 4, 9, 27, 28, 31}) {
      const int64_t token = probe * 32 + (probe % 2 == 0 ? 8 : 24);
      AttentionCase c(shape(), {{.length = 1100, .first_row = 1090}}, 66);
      Input input = c.input();
      const int64_t position = kind == Scan::relative ? 0 : probe;
      const int64_t query = kind == Scan::relative ? 64 + (probe % 2 == 0 ? 1 : 0) : 34 + 64;
      // The key that meets row 3 of head 1, as turned, in its own direction.
      const std::vector<float> q(input.q.begin() + (3 * 6 + 1) * 64, input.q.begin() + (3 * 6 + 2) * 64);
      const auto at = test::turned(q, 10.0, query - position, {.d = static_cast<int>(q.size())});
      c.set_key(0, token, 0, std::vector<float>(at.begin(), at.end()));
      const ScanSpec spec = {.chunk = 32, .most = 34, .scan = kind};
      const auto scores = scan(body(), c, input, candidates_of(input.batch, spec), c.rope(4096));
      EXPECT_EQ(std::max_element(scores.begin(), scores.begin() + 34) - scores.begin(), probe);
      const double norm = std::inner_product(q.begin(), q.end(), q.begin(), 0.0);
      EXPECT_NEAR(scores[static_cast<size_t>(probe)], 10 * norm / 8, planted);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bodies, ScanTest, testing::ValuesIn(test::body_cases()), test::body_case_name);

}  // namespace
}  // namespace bough
