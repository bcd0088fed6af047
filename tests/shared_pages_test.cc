// Pages that sequences share: copies on first write, the prefix tree, and random use against a toy model.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kv/prefix_tree.h"

namespace bough {
namespace {

constexpr KvShape kShape{DType::f32, 1, 1, 2};  // a page of 1 KiB
constexpr auto kPageBytes = int64_t{1024};

void write(PageList& list, int64_t token, uint64_t value) {
  std::memcpy(list.table().row(token, kShape.k_offset(0, 0), kShape.row_bytes()), &value, sizeof(value));
}
uint64_t read(const PageList& list, int64_t token) {
  uint64_t value = 0;
  std::memcpy(&value, list.table().row(token, kShape.k_offset(0, 0), kShape.row_bytes()), sizeof(value));
  return value;
}
void grow(PageList& list, int64_t length, uint64_t value) {
  const int64_t from = list.length();
  ASSERT_TRUE(list.extend(length).ok());
  for (int64_t token = from; token < length; ++token) write(list, token, value + static_cast<uint64_t>(token));
}

TEST(SharedPages, WholePagesAreSharedAndThePartlyFilledOneIsCopiedOnWrite) {
  PagePool pool(kShape);
  PageList a(&pool), b(&pool);
  grow(a, 150, 1000);
  b.share_prefix(a, 150);
  EXPECT_EQ(b.length(), 150);
  EXPECT_EQ(b.pages(), a.pages());
  EXPECT_EQ(pool.pages_in_use(), 3);
  grow(b, 151, 5000);
  EXPECT_EQ(pool.pages_in_use(), 4);
  EXPECT_EQ(b.pages()[1], a.pages()[1]);
  EXPECT_NE(b.pages()[2], a.pages()[2]);
  grow(a, 152, 7000);
  EXPECT_EQ(pool.pages_in_use(), 4) << "nobody shares the page any more: no copy";
  EXPECT_EQ(read(a, 150), 7150u);
  EXPECT_EQ(read(b, 150), 5150u);
  for (int64_t token = 0; token < 150; ++token) ASSERT_EQ(read(b, token), read(a, token));
}

TEST(SharedPages, APrefixThatEndsInsideAPage) {
  PagePool pool(kShape);
  PageList a(&pool), b(&pool);
  grow(a, 256, 1000);
  b.share_prefix(a, 100);
  EXPECT_EQ(b.pages().size(), 2u);
  grow(b, 130, 5000);
  EXPECT_EQ(read(b, 99), 1099u);
  EXPECT_EQ(read(b, 100), 5100u);
  for (int64_t token = 0; token < 256; ++token) ASSERT_EQ(read(a, token), 1000u + static_cast<uint64_t>(token));
}

TEST(SharedPages, RollbackIntoASharedPageThenAppendLeavesTheOtherAlone) {
  PagePool pool(kShape);
  PageList a(&pool), b(&pool);
  grow(a, 192, 1000);
  b.share_prefix(a, 192);
  a.truncate(70);
  grow(a, 192, 9000);
  EXPECT_EQ(read(a, 69), 1069u);
  EXPECT_EQ(read(a, 70), 9070u);
  for (int64_t token = 0; token < 192; ++token) ASSERT_EQ(read(b, token), 1000u + static_cast<uint64_t>(token));
  b.truncate(0);
  EXPECT_EQ(pool.pages_in_use(), 3);
}

std::vector<TokenId> text_of(uint64_t seed, int64_t length) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> text(static_cast<size_t>(length));
  for (TokenId& token : text) token = static_cast<TokenId>(random() % 1000);
  return text;
}

TEST(PrefixTree, FindsTheLongestKnownBeginning) {
  PagePool pool(kShape);
  PrefixTree tree(&pool, 100 * kPageBytes);
  PageList a(&pool);
  const std::vector<TokenId> text = text_of(1, 300);
  grow(a, 300, 1000);
  tree.insert(std::span(text).first(256), a);
  EXPECT_EQ(tree.pages(), 4);
  EXPECT_EQ(tree.find(text, 0), (std::vector<std::byte*>(a.pages().begin(), a.pages().begin() + 4)));
  EXPECT_EQ(tree.find(text, 3), (std::vector<std::byte*>{a.pages()[3]}));
  EXPECT_EQ(tree.find(std::span(text).first(191), 0).size(), 2u);
  std::vector<TokenId> other = text;
  other[130] += 1;
  EXPECT_EQ(tree.find(other, 0).size(), 2u);
  other[0] += 1;
  EXPECT_TRUE(tree.find(other, 0).empty());
  EXPECT_TRUE(tree.check_integrity().ok());
}

TEST(PrefixTree, OneCopyOfEachPageStays) {
  PagePool pool(kShape);
  PrefixTree tree(&pool, 100 * kPageBytes);
  PageList a(&pool), b(&pool);
  const std::vector<TokenId> text = text_of(1, 192);
  grow(a, 192, 1000);
  grow(b, 192, 1000);
  EXPECT_EQ(pool.pages_in_use(), 6);
  tree.insert(text, a);
  tree.insert(text, b);
  EXPECT_EQ(pool.pages_in_use(), 3);
  EXPECT_EQ(b.pages(), a.pages());
  EXPECT_EQ(b.length(), 192);
}

TEST(PrefixTree, KnowsATextByOtherPages) {
  PagePool pool(kShape);
  PrefixTree tree(&pool, 100 * kPageBytes);
  PageList a(&pool), b(&pool);
  const std::vector<TokenId> text = text_of(1, 256);
  grow(a, 256, 1000);
  grow(b, 256, 1000);
  tree.insert(std::span(text).first(192), a);
  const std::vector<std::byte*> old = a.pages(), fresh = b.pages();
  tree.replace(text, 1, std::span(fresh).subspan(1));
  EXPECT_EQ(tree.find(text, 0), (std::vector<std::byte*>{old[0], fresh[1], fresh[2]})) << "what it does not know it does not take";
  EXPECT_TRUE(tree.check_integrity().ok());
  a.truncate(0);
  EXPECT_EQ(pool.references(fresh[1]), 2);
  EXPECT_EQ(pool.pages_in_use(), 5);
  tree.replace(text, 0, std::span(fresh).first(1));
  EXPECT_EQ(pool.pages_in_use(), 4) << "nobody holds the page of `a` any more";
  b.truncate(0);
  EXPECT_EQ(tree.unused_bytes(), 3 * kPageBytes);
  EXPECT_TRUE(tree.check_integrity().ok());
}

TEST(PrefixTree, GivesBackWhatWasNotUsedForLongestAndEndsFirst) {
  PagePool pool(kShape);
  PrefixTree tree(&pool, 5 * kPageBytes);
  const std::vector<TokenId> first = text_of(1, 192), second = text_of(2, 192);
  {
    PageList a(&pool), b(&pool);
    grow(a, 192, 1000);
    grow(b, 192, 2000);
    tree.insert(first, a);
    tree.insert(second, b);
    tree.trim();
    EXPECT_EQ(tree.pages(), 6) << "pages that sequences hold are not counted";
    EXPECT_EQ(tree.unused_bytes(), 0);
  }
  EXPECT_EQ(tree.unused_bytes(), 6 * kPageBytes);
  tree.find(first, 0);
  tree.trim();
  EXPECT_EQ(tree.find(first, 0).size(), 3u);
  EXPECT_EQ(tree.find(second, 0).size(), 2u);
  EXPECT_TRUE(tree.check_integrity().ok());
  tree.drop_unused();
  EXPECT_EQ(tree.pages(), 0);
  EXPECT_EQ(pool.pages_in_use(), 0);
}

TEST(PrefixTree, WithoutABudgetItKeepsNothing) {
  PagePool pool(kShape);
  PrefixTree tree(&pool, 0);
  PageList a(&pool);
  grow(a, 64, 1);
  tree.insert(text_of(1, 64), a);
  EXPECT_EQ(tree.pages(), 0);
}

// What a row should hold: of settled pages the text decides, of other rows a number of their own.
uint64_t settled_value(const std::vector<TokenId>& text, int64_t token) {
  uint64_t hash = 14695981039346656037ULL;
  for (int64_t i = 0; i <= token; ++i) hash = (hash ^ static_cast<uint64_t>(text[static_cast<size_t>(i)])) * 1099511628211ULL;
  return hash;
}

struct Toy {
  explicit Toy(PagePool* pool) : pages(pool) {}
  PageList pages;
  std::vector<TokenId> text;
  std::vector<uint64_t> rows;  // what must be read back
  int64_t settled = 0;
};

class Play {
 public:
  explicit Play(uint64_t seed) : random_(seed) {}

  void step() {
    const size_t which = below(6);
    if (toys_[which] == nullptr) {
      toys_[which] = std::make_unique<Toy>(&pool_);
      return;
    }
    Toy& toy = *toys_[which];
    switch (below(8)) {
      case 0:
        toys_[which].reset();
        tree_.trim();
        return;
      case 1: return fork(toy);
      case 2: return rollback(toy);
      case 3: return decode(toy);
      default: return append(toy);
    }
  }

  void check() {
    std::set<const std::byte*> seen;
    for (const auto& toy : toys_) {
      if (toy == nullptr) continue;
      ASSERT_EQ(toy->pages.length(), static_cast<int64_t>(toy->rows.size()));
      for (int64_t token = 0; token < toy->pages.length(); ++token) {
        ASSERT_EQ(read(toy->pages, token), toy->rows[static_cast<size_t>(token)]) << "token " << token;
      }
      seen.insert(toy->pages.pages().begin(), toy->pages.pages().end());
    }
    ASSERT_TRUE(tree_.check_integrity().ok()) << tree_.check_integrity().message();
    const int64_t unused = tree_.unused_bytes() / kPageBytes;
    ASSERT_EQ(pool_.pages_in_use(), static_cast<int64_t>(seen.size()) + unused) << "a page is lost";
  }

  void finish() {
    for (auto& toy : toys_) toy.reset();
    tree_.trim();
    EXPECT_LE(tree_.unused_bytes(), kBudget);
    tree_.drop_unused();
    EXPECT_EQ(pool_.pages_in_use(), 0);
    EXPECT_GT(taken_, 20) << "pages that were found";
  }

 private:
  static constexpr int64_t kBudget = 12 * kPageBytes;

  size_t below(size_t n) { return random_() % n; }

  // One of a few texts that begin alike.
  std::vector<TokenId> some_text(size_t length) {
    std::vector<TokenId> text(length);
    const size_t fork_at = 64 * below(6), kind = below(3);
    for (size_t i = 0; i < length; ++i) text[i] = static_cast<TokenId>(i < fork_at ? i : i * 7 + kind);
    return text;
  }

  void append(Toy& toy) {
    const std::vector<TokenId> whole = some_text(toy.text.size() + 1 + below(300));
    const bool settles = toy.settled == static_cast<int64_t>(toy.text.size());
    toy.text.insert(toy.text.end(), whole.begin() + static_cast<ptrdiff_t>(toy.text.size()), whole.end());
    if (settles) {
      const auto known = tree_.find(toy.text, static_cast<size_t>(toy.settled / kPageTokens));
      toy.pages.append_shared(known);
      taken_ += static_cast<int64_t>(known.size());
      while (static_cast<int64_t>(toy.rows.size()) < toy.pages.length()) {
        toy.rows.push_back(settled_value(toy.text, static_cast<int64_t>(toy.rows.size())));
      }
      toy.settled = static_cast<int64_t>(toy.text.size()) / kPageTokens * kPageTokens;
    }
    write_rest(toy);
    tree_.insert(std::span(toy.text).first(static_cast<size_t>(toy.settled)), toy.pages);
    tree_.trim();
  }

  void decode(Toy& toy) {
    toy.text.push_back(static_cast<TokenId>(below(1000)));
    write_rest(toy);
  }

  void write_rest(Toy& toy) {
    ASSERT_TRUE(toy.pages.extend(static_cast<int64_t>(toy.text.size())).ok());
    for (auto token = static_cast<int64_t>(toy.rows.size()); token < toy.pages.length(); ++token) {
      toy.rows.push_back(token < toy.settled ? settled_value(toy.text, token) : random_());
      write(toy.pages, token, toy.rows.back());
    }
  }

  void rollback(Toy& toy) {
    const auto to = static_cast<int64_t>(below(toy.text.size() + 1));
    toy.text.resize(static_cast<size_t>(to));
    toy.rows.resize(static_cast<size_t>(to));
    toy.pages.truncate(to);
    toy.settled = std::min(toy.settled, to / kPageTokens * kPageTokens);
    tree_.trim();
  }

  void fork(const Toy& toy) {
    auto copy = std::make_unique<Toy>(&pool_);
    const auto length = static_cast<int64_t>(below(toy.text.size() + 1));
    copy->pages.share_prefix(toy.pages, length);
    copy->text.assign(toy.text.begin(), toy.text.begin() + length);
    copy->rows.assign(toy.rows.begin(), toy.rows.begin() + length);
    copy->settled = std::min(toy.settled, length / kPageTokens * kPageTokens);
    const size_t place = below(6);
    if (toys_[place].get() != &toy) toys_[place] = std::move(copy);
  }

  std::mt19937_64 random_;
  PagePool pool_{kShape};
  PrefixTree tree_{&pool_, kBudget};
  std::vector<std::unique_ptr<Toy>> toys_ = std::vector<std::unique_ptr<Toy>>(6);
  int64_t taken_ = 0;
};

TEST(SharedPages, RandomUseAgainstAToyModel) {
  for (const uint64_t seed : {1, 2, 3, 4}) {
    Play play(seed);
    for (int i = 0; i < 500; ++i) {
      play.step();
      play.check();
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << ", step " << i;
    }
    play.finish();
  }
}

}  // namespace
}  // namespace bough
