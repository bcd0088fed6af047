// PagePool and PageList: no page is lost, shared or overlapped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kv/page_pool.h"

namespace bough {
namespace {

constexpr KvShape kSmall{DType::f32, 1, 1, 2};      // a page of 1 KiB
constexpr KvShape kLarge{DType::f32, 512, 4, 128};  // one of 128 MiB, more than an arena
constexpr KvShape kOdd{DType::bf16, 3, 5, 6};       // no power of two

TEST(PagePool, TakesAndGivesBack) {
  PagePool pool(kSmall);
  EXPECT_EQ(pool.pages_in_use(), 0);
  const Result<std::byte*> a = pool.take(), b = pool.take();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(*a, *b);
  EXPECT_EQ(pool.pages_in_use(), 2);
  EXPECT_EQ(pool.bytes_in_use(), 2048);
  pool.give_back(*a);
  EXPECT_EQ(pool.pages_in_use(), 1);
  const Result<std::byte*> again = pool.take();
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, *a) << "a page that was given back is handed out first";
}

// Whoever lets go last frees the page, and while the keeper is alone it counts.
TEST(PagePool, KeptPages) {
  PagePool pool(kSmall);
  std::byte* page = *pool.take();
  pool.keep(page);
  EXPECT_EQ(pool.references(page), 2);
  EXPECT_EQ(pool.pages_only_kept(), 0);
  pool.share(page);
  pool.give_back(page);
  EXPECT_EQ(pool.pages_only_kept(), 0);
  pool.give_back(page);
  EXPECT_EQ(pool.references(page), 1);
  EXPECT_EQ(pool.pages_only_kept(), 1);
  EXPECT_EQ(pool.pages_in_use(), 1);
  pool.share(page);
  EXPECT_EQ(pool.pages_only_kept(), 0);
  pool.drop(page);
  EXPECT_EQ(pool.references(page), 1);
  EXPECT_EQ(pool.pages_in_use(), 1);
  pool.keep(page);
  pool.give_back(page);
  pool.drop(page);
  EXPECT_EQ(pool.pages_only_kept(), 0);
  EXPECT_EQ(pool.pages_in_use(), 0);
}

// Pages in a view are counted as others are, and the view goes with the last of them.
TEST(PagePool, PagesInViews) {
  PagePool pool(kSmall);
  PageList list(&pool), other(&pool);
  ASSERT_TRUE(list.extend(64).ok());
  std::weak_ptr<std::byte> views[2];
  for (int v = 0; v < 2; ++v) {
    const std::shared_ptr<std::byte> view(new std::byte[5000], std::default_delete<std::byte[]>());
    views[v] = view;
    list.append_view(view, {view.get() + 64, view.get() + 64 + 1088, view.get() + 64 + 2176});
  }
  EXPECT_EQ(list.length(), 7 * 64);
  EXPECT_EQ(pool.pages_in_use(), 7);
  EXPECT_EQ(pool.pages_in_memory(), 1);
  EXPECT_TRUE(pool.in_memory(list.pages()[0]));
  EXPECT_FALSE(pool.in_memory(list.pages()[6]));
  other.share_prefix(list, 100);
  EXPECT_EQ(pool.references(list.pages()[0]), 2);
  EXPECT_EQ(pool.references(list.pages()[1]), 2);
  EXPECT_EQ(pool.references(list.pages()[2]), 1);
  std::memset(list.pages()[1], 5, 1024);
  ASSERT_TRUE(other.extend(101).ok());
  EXPECT_NE(other.pages()[1], list.pages()[1]) << "a shared page is not written to";
  EXPECT_EQ(std::memcmp(other.pages()[1], list.pages()[1], 1024), 0);
  list.truncate(128);
  EXPECT_FALSE(views[0].expired());
  EXPECT_TRUE(views[1].expired());
  EXPECT_EQ(pool.pages_in_use(), 3);
  EXPECT_EQ(pool.pages_in_memory(), 2) << "the first page and the copy";
  list.truncate(64);
  EXPECT_TRUE(views[0].expired());
}

TEST(PagePool, PagesLargerThanAnArena) {
  PagePool pool(kLarge);
  PageList list(&pool);
  ASSERT_TRUE(list.extend(65).ok());
  ASSERT_EQ(list.pages().size(), 2u);
  for (std::byte* page : list.pages()) page[kLarge.page_bytes() - 1] = std::byte{1};
  EXPECT_EQ(pool.bytes_in_use(), 2 * static_cast<int64_t>(kLarge.page_bytes()));
}

TEST(PagePool, PagesDoNotOverlap) {
  PagePool pool(kOdd);
  const size_t bytes = kOdd.page_bytes();
  const size_t count = 3 * (size_t{32} << 20) / bytes;  // three arenas
  std::vector<std::byte*> pages;
  for (size_t i = 0; i < count; ++i) {
    const Result<std::byte*> page = pool.take();
    ASSERT_TRUE(page.ok());
    pages.push_back(*page);
  }
  std::sort(pages.begin(), pages.end());
  for (size_t i = 1; i < pages.size(); ++i) ASSERT_GE(static_cast<size_t>(pages[i] - pages[i - 1]), bytes);
  for (std::byte* page : pages) EXPECT_EQ(reinterpret_cast<uintptr_t>(page) % 64, 0u);
}

TEST(PageList, HoldsWholePages) {
  PagePool pool(kSmall);
  PageList list(&pool);
  for (const auto& [length, pages] : {std::pair<int64_t, size_t>{0, 0}, {1, 1}, {64, 1}, {65, 2}, {128, 2}, {1000, 16}}) {
    ASSERT_TRUE(list.extend(length).ok());
    EXPECT_EQ(list.length(), length);
    EXPECT_EQ(list.pages().size(), pages);
    EXPECT_EQ(list.table().length, length);
  }
  const std::vector<std::byte*> before = list.pages();
  list.truncate(65);
  EXPECT_EQ(list.pages(), (std::vector<std::byte*>{before[0], before[1]}));
  list.truncate(64);
  EXPECT_EQ(pool.pages_in_use(), 1);
  list.truncate(0);
  EXPECT_EQ(pool.pages_in_use(), 0);
}

TEST(PageList, ExtendingToLessChangesNothing) {
  PagePool pool(kSmall);
  PageList list(&pool);
  ASSERT_TRUE(list.extend(200).ok());
  ASSERT_TRUE(list.extend(10).ok());
  EXPECT_EQ(list.length(), 200);
  EXPECT_EQ(list.pages().size(), 4u);
}

TEST(PageList, TableFindsRows) {
  PagePool pool(kOdd);
  PageList list(&pool);
  ASSERT_TRUE(list.extend(130).ok());
  PageTable table = list.table();
  const size_t plane = kOdd.v_offset(2, 4);
  EXPECT_EQ(table.row(129, plane, kOdd.row_bytes()), list.pages()[2] + plane + kOdd.row_bytes());
  EXPECT_LE(kOdd.v_offset(2, 4) + kOdd.head_bytes(), kOdd.page_bytes());
}

// What a list should be: its length, and for each page the number that was written there.
struct Toy {
  int64_t length = 0;
  std::vector<uint64_t> stamps;
};

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  void step() {
    const auto which = below(8);
    switch (below(4)) {
      case 0: return make_or_drop(which);
      case 1: return truncate(which);
      default: return extend(which);
    }
  }

  void check() {
    std::set<std::byte*> seen;
    for (size_t i = 0; i < lists_.size(); ++i) {
      if (lists_[i] == nullptr) continue;
      ASSERT_EQ(lists_[i]->length(), toys_[i].length);
      ASSERT_EQ(lists_[i]->pages().size(), static_cast<size_t>((toys_[i].length + 63) / 64));
      ASSERT_EQ(lists_[i]->pages().size(), toys_[i].stamps.size());
      for (size_t p = 0; p < toys_[i].stamps.size(); ++p) {
        std::byte* page = lists_[i]->pages()[p];
        ASSERT_TRUE(seen.insert(page).second) << "a page belongs to two lists";
        uint64_t first = 0, last = 0;
        std::memcpy(&first, page, 8);
        std::memcpy(&last, page + kSmall.page_bytes() - 8, 8);
        ASSERT_EQ(first, toys_[i].stamps[p]);
        ASSERT_EQ(last, toys_[i].stamps[p]);
      }
    }
    ASSERT_EQ(pool_.pages_in_use(), static_cast<int64_t>(seen.size()));
  }

  void finish() {
    for (auto& list : lists_) list.reset();
    EXPECT_EQ(pool_.bytes_in_use(), 0);
  }

 private:
  size_t below(size_t n) { return random_() % n; }

  void make_or_drop(size_t i) {
    toys_[i] = {};
    if (lists_[i] != nullptr) {
      lists_[i].reset();
    } else {
      lists_[i] = std::make_unique<PageList>(&pool_);
    }
  }

  void truncate(size_t i) {
    if (lists_[i] == nullptr) return;
    toys_[i].length = static_cast<int64_t>(below(static_cast<size_t>(toys_[i].length) + 1));
    toys_[i].stamps.resize(static_cast<size_t>((toys_[i].length + 63) / 64));
    lists_[i]->truncate(toys_[i].length);
  }

  void extend(size_t i) {
    if (lists_[i] == nullptr) return;
    toys_[i].length += static_cast<int64_t>(below(300));
    ASSERT_TRUE(lists_[i]->extend(toys_[i].length).ok());
    while (toys_[i].stamps.size() < lists_[i]->pages().size()) {
      std::byte* page = lists_[i]->pages()[toys_[i].stamps.size()];
      const uint64_t stamp = random_();
      std::memcpy(page, &stamp, 8);
      std::memcpy(page + kSmall.page_bytes() - 8, &stamp, 8);
      toys_[i].stamps.push_back(stamp);
    }
  }

  std::mt19937_64 random_;
  PagePool pool_{kSmall};
  std::vector<std::unique_ptr<PageList>> lists_ = std::vector<std::unique_ptr<PageList>>(8);
  std::vector<Toy> toys_ = std::vector<Toy>(8);
};

TEST(PagePool, RandomUseAgainstAToyModel) {
  for (const uint64_t seed : {1, 2, 3}) {
    Model model(seed);
    for (int i = 0; i < 400; ++i) {
      model.step();
      model.check();
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << ", step " << i;
    }
    model.finish();
  }
}

}  // namespace
}  // namespace bough
