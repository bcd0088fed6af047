// Texts whose pages take more memory than they may: pages that a session file holds are used there, and no bit changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/attention_case.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::asked;
using test::file_bytes;
using test::logits_of;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;
using testing::HasSubstr;

constexpr int64_t kTight = 1;  // bytes: nothing stays in memory that a file holds
constexpr int64_t kStep = 256;

std::unique_ptr<Engine> engine_of(const TinyFile& file, const std::string& plan, DType kv, int64_t kv_memory, int64_t prefix_bytes = 0) {
  EngineOptions options{file.path(), plan, kv, 2};
  options.prefix_bytes = prefix_bytes;
  options.kv_memory = kv_memory;
  Result<std::unique_ptr<Engine>> engine = Engine::open(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

// In appends of kStep tokens, each of which may move what the ones before it have read.
void read(Session& session, std::span<const TokenId> text) {
  for (size_t at = 0; at < text.size(); at += kStep) {
    ASSERT_TRUE(session.append(text.subspan(at, std::min<size_t>(kStep, text.size() - at))).ok());
  }
}

class FileTierTypes : public testing::TestWithParam<DType> {};

TEST_P(FileTierTypes, TheBitsAreThoseOfMemory) {
  const test::TempFolder folder;
  const TinyFile file(test::peaked_model());
  const std::vector<std::string> plans = {test::kSmallPlan, test::kSmallTree, "dense"};
  const std::vector<TokenId> text = tiny_text(2000);
  for (size_t i = 0; i < plans.size(); ++i) {
    const std::string& plan = plans[i];
    const auto roomy = engine_of(file, plan, GetParam(), INT64_MAX), tight = engine_of(file, plan, GetParam(), kTight);
    ASSERT_TRUE(roomy != nullptr && tight != nullptr);
    const auto in_memory = session_of(*roomy), in_file = session_of(*tight);
    ASSERT_TRUE(in_file->keep(folder / std::to_string(i), "").ok());
    read(*in_memory, text);
    read(*in_file, text);
    EXPECT_EQ(roomy->cache_memory(), roomy->cache_bytes());
    EXPECT_EQ(tight->cache_bytes(), roomy->cache_bytes());
    EXPECT_LT(tight->cache_memory() * 4, tight->cache_bytes()) << plan;
    EXPECT_TRUE(same_bits(asked(*in_file), asked(*in_memory))) << plan;
    EXPECT_TRUE(in_file->keeping().ok() && in_file->is_keeping());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FileTierTypes, testing::ValuesIn(kAllDTypes), [](const auto& info) { return name_of(info.param); });

class FileTier : public testing::Test {
 protected:
  FileTier() : file_(test::peaked_model()) { open(kTight, 0); }
  void SetUp() override { ASSERT_TRUE(roomy_ != nullptr && tight_ != nullptr); }
  void open(int64_t kv_memory, int64_t prefix_bytes) {
    roomy_ = engine_of(file_, test::kSmallPlan, DType::bf16, INT64_MAX);
    tight_ = engine_of(file_, test::kSmallPlan, DType::bf16, kv_memory, prefix_bytes);
  }
  int64_t page_bytes() const { return roomy_->info().kv_bytes_per_token(DType::bf16) * kPageTokens; }
  // What a session gives that reads the text alone and in memory.
  std::vector<float> expected(std::span<const TokenId> text) {
    const auto session = session_of(*roomy_);
    read(*session, text);
    return asked(*session);
  }

  test::TempFolder folder_;
  TinyFile file_;
  std::unique_ptr<Engine> roomy_;
  std::unique_ptr<Engine> tight_;
};

// Seen within the steps of one append. What a step reads cannot be in the file yet, and what the step before has read is just written.
TEST_F(FileTier, MemoryStaysWithinTheLimit) {
  const std::vector<TokenId> text = tiny_text(8192);
  for (const int64_t pages : {0, 70, 100}) {
    open(std::max<int64_t>(1, pages * page_bytes()), 0);
    const auto session = session_of(*tight_);
    ASSERT_TRUE(session->keep(folder_ / std::to_string(pages), "").ok());
    int64_t most = 0;
    tight_->observe([&](const LayerView&) { most = std::max(most, tight_->cache_memory() / page_bytes()); });
    ASSERT_TRUE(session->append(text).ok());
    EXPECT_LE(most, std::max<int64_t>(pages, 64));
    EXPECT_GT(most, pages - 32) << "no more moves than must";
    EXPECT_EQ(tight_->cache_bytes(), 128 * page_bytes());
  }
}

TEST_F(FileTier, WithinTheLimitNothingMoves) {
  open(73 * page_bytes(), 0);  // and those of one step
  const auto session = session_of(*tight_);
  ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
  read(*session, tiny_text(41 * 64));
  EXPECT_EQ(tight_->cache_memory(), 41 * page_bytes());
  read(*session, tiny_text(256));
  EXPECT_LT(tight_->cache_memory(), 41 * page_bytes());
}

TEST_F(FileTier, WithoutAFileReadingGoesOnInMemory) {
  const std::vector<TokenId> text = tiny_text(2000);
  const auto session = session_of(*tight_);
  read(*session, text);
  EXPECT_FALSE(session->is_keeping());
  EXPECT_EQ(tight_->cache_memory(), 32 * page_bytes());
  EXPECT_TRUE(same_bits(asked(*session), expected(text)));
}

// Pages that were read before the file was made move to it too, from under a fork that has no file.
TEST_F(FileTier, ForksHoldThePagesOfTheFile) {
  const std::vector<TokenId> text = tiny_text(3072);
  const auto session = session_of(*tight_);
  read(*session, std::span(text).first(2048));
  const auto fork = session->fork();
  ASSERT_TRUE(fork.ok());
  ASSERT_TRUE((*fork)->rollback(2000).ok());
  ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
  EXPECT_EQ(tight_->cache_memory(), 32 * page_bytes());
  read(*session, std::span(text).subspan(2048));
  EXPECT_EQ(tight_->cache_memory(), 4 * page_bytes()) << "what the last append has read";
  EXPECT_EQ(tight_->cache_bytes(), 48 * page_bytes());
  const std::vector<TokenId> other = tiny_text(500, 77);
  read(**fork, other);
  const auto never = session_of(*roomy_);
  read(*never, std::span(text).first(2048));
  ASSERT_TRUE(never->rollback(2000).ok());
  read(*never, other);
  EXPECT_TRUE(same_bits(asked(**fork), asked(*never)));
  EXPECT_TRUE(same_bits(asked(*session), expected(text)));
}

TEST_F(FileTier, KnownPagesAreThoseOfTheFile) {
  open(kTight, int64_t{1} << 30);
  const std::vector<TokenId> text = tiny_text(2048);
  const std::vector<float> right = expected(text);
  auto first = session_of(*tight_);
  ASSERT_TRUE(first->keep(folder_ / "s", "").ok());
  read(*first, text);
  EXPECT_EQ(tight_->cache_memory(), 4 * page_bytes());
  auto second = session_of(*tight_);
  ASSERT_TRUE(second->append(text).ok());
  EXPECT_EQ(tight_->cache_bytes(), 32 * page_bytes()) << "all of them were known";
  EXPECT_TRUE(same_bits(asked(*second), right));
  first.reset();
  second.reset();
  EXPECT_EQ(tight_->cache_bytes(), 32 * page_bytes());
  const auto third = session_of(*tight_);
  ASSERT_TRUE(third->append(text).ok());
  EXPECT_LE(tight_->cache_memory(), 4 * page_bytes());
  EXPECT_TRUE(same_bits(asked(*third), right));
}

TEST_F(FileTier, KnownPagesThatNobodyHoldsGoFirst) {
  open(kTight, int64_t{1} << 30);
  auto first = session_of(*tight_);
  read(*first, tiny_text(2048));
  first.reset();
  EXPECT_EQ(tight_->cache_memory(), 32 * page_bytes());
  const auto second = session_of(*tight_);
  read(*second, tiny_text(640, 77));
  EXPECT_EQ(tight_->cache_memory(), 10 * page_bytes());
}

TEST_F(FileTier, RollbackIntoPagesOfTheFile) {
  const std::vector<TokenId> text = tiny_text(2048), other = tiny_text(900, 77);
  const auto session = session_of(*tight_), never = session_of(*roomy_);
  ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
  read(*session, text);
  read(*never, text);
  const std::vector<std::byte> bytes = file_bytes(folder_ / "s");
  for (Session* s : {session.get(), never.get()}) {
    ASSERT_TRUE(s->rollback(700).ok());
    read(*s, other);
  }
  EXPECT_FALSE(session->is_keeping());
  EXPECT_EQ(file_bytes(folder_ / "s"), bytes);
  EXPECT_TRUE(same_bits(asked(*session), asked(*never)));
}

TEST_F(FileTier, CancelledAndGoneOnWith) {
  const std::vector<TokenId> text = tiny_text(8192);
  const auto session = session_of(*tight_);
  ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
  AppendOptions options;
  options.progress = [](const Progress& p) { return p.done < 4096; };
  EXPECT_EQ(session->append(text, options).code(), Code::cancelled);
  EXPECT_EQ(session->length(), 4096);
  ASSERT_TRUE(session->append(std::span(text).subspan(4096)).ok());
  EXPECT_TRUE(same_bits(asked(*session), expected(text)));
}

// Nothing that is in use is cut: a removed file lives on, and one that `save` needs the name of is replaced.
TEST_F(FileTier, TheFileMayGo) {
  const std::vector<TokenId> text = tiny_text(2048);
  const auto first = session_of(*tight_), second = session_of(*tight_);
  const std::vector<float> right = expected(text);
  ASSERT_TRUE(first->keep(folder_ / "a", "").ok());
  ASSERT_TRUE(second->keep(folder_ / "b.part", "").ok());
  read(*first, text);
  read(*second, text);
  EXPECT_LE(tight_->cache_memory(), 8 * page_bytes());
  EXPECT_THAT(first->save(folder_ / "b").message(), HasSubstr("is being written by another process"));
  const auto fork = second->fork();
  ASSERT_TRUE(fork.ok() && second->rollback(0).ok());  // the lock goes, the pages are still in use
  ASSERT_TRUE(first->save(folder_ / "b").ok());
  ASSERT_TRUE(std::filesystem::remove(folder_ / "a"));
  EXPECT_TRUE(same_bits(asked(**fork), right));
  EXPECT_TRUE(same_bits(asked(*first), right));
  const auto restored = tight_->restore_session(folder_ / "b");
  ASSERT_TRUE(restored.ok()) << restored.status().message();
  EXPECT_TRUE(same_bits(asked(**restored), right));
}

TEST_F(FileTier, AFileThatIsGoneOnWith) {
  const std::vector<TokenId> text = tiny_text(4096);
  {
    const auto session = session_of(*roomy_);
    ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
    read(*session, std::span(text).first(2048));
  }
  const auto session = tight_->restore_session(folder_ / "s");
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(tight_->cache_memory(), 0);
  ASSERT_TRUE((*session)->keep(folder_ / "s", "").ok());
  read(**session, std::span(text).subspan(2048));
  EXPECT_EQ(tight_->cache_memory(), 4 * page_bytes());
  EXPECT_TRUE(same_bits(asked(**session), expected(text)));
}

// Of a file that was there nobody has looked at the pages: a damaged one must not take the place of the one that was read.
TEST_F(FileTier, PagesThatAnotherWriterLeftAreChecked) {
  const std::vector<TokenId> text = tiny_text(2048);
  {
    const auto session = session_of(*roomy_);
    ASSERT_TRUE(session->keep(folder_ / "s", "").ok());
    read(*session, text);
  }
  const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(folder_ / "s") / 2);
  std::fstream file(folder_ / "s", std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(middle);
  const int byte = file.get();
  file.seekp(middle);
  file.put(static_cast<char>(byte ^ 0x55));
  file.close();
  const auto session = session_of(*tight_);
  read(*session, text);
  const Status kept = session->keep(folder_ / "s", "");
  EXPECT_EQ(kept.code(), Code::corrupt);
  EXPECT_THAT(kept.message(), HasSubstr("is damaged: page"));
  EXPECT_TRUE(same_bits(asked(*session), expected(text)));
}

TEST_F(FileTier, NegativeMemoryIsRefused) {
  EngineOptions options;
  options.model = file_.path();
  options.kv_memory = -1;
  EXPECT_EQ(Engine::open(options).status().message(), "kv_memory is -1, it must not be negative");
}

// The same random appends, forks, rollbacks and files in both engines.
TEST_F(FileTier, RandomUse) {
  open(40 * page_bytes(), 20 * page_bytes());
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t n) { return static_cast<size_t>(random() % n); };
  std::vector<std::pair<std::unique_ptr<Session>, std::unique_ptr<Session>>> pairs;
  int64_t least = INT64_MAX;
  for (int i = 0; i < 200; ++i) {
    if (pairs.size() < 2) pairs.emplace_back(session_of(*roomy_), session_of(*tight_));
    auto& [roomy, tight] = pairs[below(pairs.size())];
    ASSERT_EQ(roomy->length(), tight->length());
    const size_t what = below(10);
    if (what < 5) {
      const size_t begin = below(3) * 64, pages = 1 + below(8);
      const std::vector<TokenId> text = tiny_text(static_cast<int64_t>(begin + pages * 64 + (below(8) == 0 ? below(64) : 0)), 5 + below(2));
      const AppendOptions options{.will_sample = below(8) == 0, .logits = 3};
      ASSERT_TRUE(roomy->append(std::span(text).subspan(begin), options).ok());
      ASSERT_TRUE(tight->append(std::span(text).subspan(begin), options).ok());
      ASSERT_TRUE(same_bits(tight->logits(), logits_of(*roomy))) << "step " << i;
    } else if (what < 7) {
      const auto most = static_cast<int64_t>(below(200));  // tokens less
      const int64_t grain = below(4) == 0 ? 1 : 64;
      const int64_t to = std::max<int64_t>(0, roomy->length() - most) / grain * grain;
      ASSERT_TRUE(roomy->rollback(to).ok() && tight->rollback(to).ok());
    } else if (what == 7) {
      const std::string path = folder_ / std::to_string(i);
      if (!tight->is_keeping()) {
        ASSERT_TRUE(tight->keep(path, "").ok());
      }
      if (below(2) == 0) std::filesystem::remove(path);
    } else if (what == 8 && pairs.size() < 5) {
      auto a = roomy->fork(), b = tight->fork();
      ASSERT_TRUE(a.ok() && b.ok());
      pairs.emplace_back(std::move(*a), std::move(*b));
    } else if (what == 9) {
      pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(below(pairs.size())));
    }
    if (tight_->cache_bytes() > 60 * page_bytes()) least = std::min(least, 100 * tight_->cache_memory() / tight_->cache_bytes());
  }
  EXPECT_LT(least, 60) << "percent of the pages in memory when most lay in files";
  pairs.clear();
  EXPECT_LE(tight_->cache_bytes(), 20 * page_bytes());
}

}  // namespace
}  // namespace bough
