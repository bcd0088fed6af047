// Memory that runs out: the n-th allocation fails, for every n until nothing fails any more. Each call then returns a Status, a session
// holds what it held, and the same call goes through when there is memory again. Counted are allocations by operator new; the C
// libraries' malloc is out of reach here.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "bough/session_store.h"
#include "support/attention_case.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace {

std::atomic<int64_t> allocations_left{-1};  // until the one that fails; -1: none does
std::atomic<bool> failed{false};

bool fails_now() {
  if (allocations_left.load(std::memory_order_relaxed) < 0) return false;
  if (allocations_left.fetch_sub(1) != 0) return false;
  failed = true;
  return true;
}

void* allocate(size_t bytes, size_t alignment) {
  if (fails_now()) return nullptr;
  return alignment <= alignof(std::max_align_t) ? std::malloc(bytes == 0 ? 1 : bytes)
                                                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(size_t bytes, size_t alignment = 1) {
  void* memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

[[gnu::noinline]] void* operator new(size_t n) { return allocate_or_throw(n); }
[[gnu::noinline]] void* operator new[](size_t n) { return allocate_or_throw(n); }
[[gnu::noinline]] void* operator new(size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
[[gnu::noinline]] void* operator new[](size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
[[gnu::noinline]] void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
[[gnu::noinline]] void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
[[gnu::noinline]] void* operator new(size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<size_t>(a));
}
[[gnu::noinline]] void* operator new[](size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }

// llama.cpp's vocabulary loader drops what it holds when it throws.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier,readability-identifier-naming): its name
extern "C" const char* __lsan_default_suppressions() { return "leak:gguf_init_from_\nleak:ggml_init\nleak:llama_model_load\n"; }

namespace bough {
namespace {

// Pruned from 161 tokens on, in the first layer from 177: small, since every allocation costs a run.
constexpr const char* kPlan =
    R"({"mode":"stages","sinks":64,"window":64,"stages":[{"chunk":16,"query_stride":4},{"chunk":4,"keep":64}],"k":32,)"
    R"("first":{"layers":1,"k":48,"scan":"chunk-indexed"},"refresh":[4,2],"tail":32})";

using test::logits_of;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;

// `call` returns a Status; `check` sees it each time. Returns the number of allocations of a call.
template <typename Call, typename Check>
int64_t fail_each_allocation(const Call& call, const Check& check) {
  for (int64_t n = 0;; ++n) {
    SCOPED_TRACE("allocation " + std::to_string(n));
    failed = false;
    allocations_left = n;
    Status status = call();
    allocations_left = -1;
    if (!failed) {
      EXPECT_TRUE(status.ok()) << status.message();
      check(status);
      return n;
    }
    EXPECT_TRUE(status.ok() || !status.message().empty());
    check(status);
    if (testing::Test::HasFailure()) return n;
  }
}

class AllocationFault : public testing::Test {
 protected:
  AllocationFault() : file_(test::peaked_model()), engine_(file_.engine(kPlan)), text_(tiny_text(200)), question_(tiny_text(34, 8)) {}
  void SetUp() override { ASSERT_NE(engine_, nullptr); }

  std::vector<float> fresh() {
    const auto session = session_of(*engine_);
    EXPECT_TRUE(session->append(text_).ok());
    EXPECT_TRUE(session->append(question_, {.will_sample = true}).ok());
    return logits_of(*session);
  }

  test::TempFolder folder_;
  TinyFile file_;
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> text_;
  std::vector<TokenId> question_;
};

// A plan by name: the JSON library's destructor allocates and must not throw, so that a JSON plan has no way to fail here.
TEST_F(AllocationFault, Open) {
  const EngineOptions options{file_.path(), "dense", DType::f32, 1};
  const int64_t count = fail_each_allocation([&] { return Engine::open(options).status(); }, [](const Status&) {});
  EXPECT_GT(count, 100);
}

// A new engine each time: what it makes when it is first needed fails too.
TEST_F(AllocationFault, Append) {
  const std::vector<float> expected = fresh();
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
  const auto renew = [&] {
    session.reset();
    engine = file_.engine(kPlan);
    session = session_of(*engine);
  };
  renew();
  const int64_t count = fail_each_allocation(
      [&] {
        const Status read = session->append(text_);
        return read.ok() ? session->append(question_, {.will_sample = true}) : read;
      },
      [&](const Status& status) {
        const int64_t length = session->length();
        ASSERT_TRUE(length == 0 || length == 200 || length == 234) << length;
        ASSERT_EQ(session->tokens().size(), static_cast<size_t>(length));
        ASSERT_TRUE(!status.ok() || same_bits(session->logits(), expected));
        ASSERT_TRUE(session->rollback(std::min<int64_t>(length, 200)).ok());
        ASSERT_TRUE(length > 0 || session->append(text_).ok());
        ASSERT_TRUE(session->append(question_, {.will_sample = true}).ok());
        ASSERT_TRUE(same_bits(session->logits(), expected));
        renew();
      });
  EXPECT_GT(count, 50);
}

TEST_F(AllocationFault, Generate) {
  std::vector<TokenId> expected;
  std::unique_ptr<Session> session;
  const auto renew = [&] {
    session = session_of(*engine_);
    ASSERT_TRUE(session->append(text_, {.will_sample = true}).ok());
  };
  renew();
  const Result<Generation> answer = session->generate({.max_tokens = 6});
  ASSERT_TRUE(answer.ok());
  expected = answer->tokens;
  renew();
  const int64_t count = fail_each_allocation([&] { return session->generate({.max_tokens = 6}).status(); },
                                             [&](const Status&) {
                                               ASSERT_GE(session->length(), 200);
                                               ASSERT_TRUE(session->rollback(199).ok());
                                               ASSERT_TRUE(session->append(std::span(text_).last(1), {.will_sample = true}).ok());
                                               ASSERT_TRUE(session->generate({.max_tokens = 2}).ok());
                                               renew();
                                             });
  EXPECT_GT(count, 10);
}

TEST_F(AllocationFault, SaveAndRestore) {
  const std::string path = folder_ / "s";
  const std::vector<float> expected = fresh();
  const auto session = session_of(*engine_);
  ASSERT_TRUE(session->append(text_).ok());
  ASSERT_TRUE(session->save(path).ok());
  const int64_t saving = fail_each_allocation([&] { return session->save(path); },
                                              [&](const Status&) {
                                                const auto restored = engine_->restore_session(path);
                                                ASSERT_TRUE(restored.ok()) << restored.status().message();
                                                ASSERT_EQ((*restored)->length(), 192);
                                                ASSERT_FALSE(std::filesystem::exists(path + ".part"));
                                              });
  EXPECT_GT(saving, 10);
  std::unique_ptr<Session> restored;
  const int64_t restoring = fail_each_allocation(
      [&] {
        restored.reset();
        auto result = engine_->restore_session(path);
        if (result.ok()) restored = std::move(*result);
        return result.status();
      },
      [&](const Status& status) {
        if (!status.ok()) return;
        ASSERT_TRUE(restored->append(std::span(text_).subspan(192)).ok());
        ASSERT_TRUE(restored->append(question_, {.will_sample = true}).ok());
        ASSERT_TRUE(same_bits(restored->logits(), expected));
      });
  EXPECT_GT(restoring, 10);
}

TEST_F(AllocationFault, Store) {
  const SessionStore store({.folder = folder_ / "sessions"});
  {
    auto opened = store.open_session(*engine_, text_, "label");
    ASSERT_TRUE(opened.ok());
    ASSERT_TRUE(opened->session->append(std::span(text_).first(64)).ok());
  }
  const std::vector<float> expected = fresh();
  std::unique_ptr<Session> session;
  const int64_t count = fail_each_allocation(
      [&] {
        session.reset();
        const TokenizedText source{"the text", false, text_};
        auto opened = store.open_session(*engine_, text_, "label", &source);
        if (opened.ok()) session = std::move(opened->session);
        return opened.status();
      },
      [&](const Status& status) {
        if (!status.ok()) return;
        ASSERT_TRUE(session->append(std::span(text_).subspan(static_cast<size_t>(session->length()), 10)).ok());
      });
  EXPECT_GT(count, 10);
  EXPECT_EQ(store.list()->size(), 1U);
}

}  // namespace
}  // namespace bough
