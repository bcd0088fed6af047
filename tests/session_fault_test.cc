// Session files when something goes wrong: each operation failing in turn, a file that must not grow, a process killed at any point, two
// processes at one file. Whatever happens is a Status, what was saved before stays, and reading is never harmed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "bough/session_store.h"
#include "support/attention_case.h"
#include "support/faulty_files.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::logits_of;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;
using testing::HasSubstr;

class SessionFault : public testing::Test {
 protected:
  SessionFault() : file_(test::peaked_model()), clean_(file_.engine(test::kSmallPlan)), text_(tiny_text(200)), old_(tiny_text(130, 77)) {
    engine_ = engine_of(0);
    const auto session = session_of(*clean_);
    EXPECT_TRUE(session->append(text_).ok());
    EXPECT_TRUE(session->append(old_, {.will_sample = true}).ok());
    expected_ = logits_of(*session);
  }
  void SetUp() override { ASSERT_TRUE(clean_ != nullptr && engine_ != nullptr); }

  // One whose files are files_.
  std::unique_ptr<Engine> engine_of(int64_t kv_memory) {
    Result<std::unique_ptr<Engine>> engine = Engine::open({file_.path(), test::kSmallPlan, DType::f32, 1, &files_, 0, kv_memory});
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? std::move(*engine) : nullptr;
  }
  // Reading ended as it would have without files.
  void expect_right(Session& session) {
    ASSERT_TRUE(session.append(std::span(text_).subspan(static_cast<size_t>(session.length()))).ok());
    ASSERT_TRUE(session.append(old_, {.will_sample = true}).ok());
    EXPECT_TRUE(same_bits(session.logits(), expected_));
  }
  // The text that the file holds, in tokens; -1 when it cannot be restored.
  int64_t holds(const std::string& path, const std::vector<TokenId>& text) {
    const auto session = clean_->restore_session(path);
    if (!session.ok()) return -1;
    const std::span<const TokenId> tokens = (*session)->tokens();
    EXPECT_TRUE(tokens.size() <= text.size() && std::equal(tokens.begin(), tokens.end(), text.begin())) << path;
    return (*session)->length();
  }
  // Runs `body` with each of its operations failing in turn: alone, with all after it, and with all writes after it. Returns how often.
  template <typename F>
  int64_t with_faults(const F& body) {
    files_ = {};
    body();
    const int64_t count = files_.operations;
    for (int64_t at = 0; at < count; ++at) {
      for (const int mode : {0, 1, 2}) {
        SCOPED_TRACE("operation " + std::to_string(at) + ", mode " + std::to_string(mode));
        files_ = {};
        files_.fail_at = at;
        files_.fail_on = mode > 0;
        files_.writes_only = mode == 2;
        body();
        if (testing::Test::HasFailure()) return count;
      }
    }
    files_ = {};
    return count;
  }

  test::TempFolder folder_;
  test::FaultyFiles files_;
  TinyFile file_;
  std::unique_ptr<Engine> clean_;
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> text_;
  std::vector<TokenId> old_;
  std::vector<float> expected_;
};

TEST_F(SessionFault, SaveLeavesTheOldFileOrTheNewOne) {
  const std::string path = folder_ / "s";
  const auto before = session_of(*clean_), session = session_of(*engine_);
  ASSERT_TRUE(before->append(old_).ok());
  ASSERT_TRUE(session->append(text_).ok());
  const int64_t count = with_faults([&] {
    ASSERT_TRUE(before->save(path).ok());
    const Status saved = session->save(path);
    if (files_.fail_at < 0) {
      ASSERT_TRUE(saved.ok()) << saved.message();
    }
    if (saved.ok()) {
      ASSERT_EQ(holds(path, text_), 192);
    } else {
      ASSERT_THAT(saved.message(), HasSubstr("fails on purpose"));
      ASSERT_EQ(holds(path, old_), 128);
    }
    std::filesystem::remove(path + ".part");
  });
  EXPECT_GE(count, 12);
}

TEST_F(SessionFault, RestoreIsWholeOrAnError) {
  const std::string path = folder_ / "s";
  const auto session = session_of(*clean_);
  ASSERT_TRUE(session->append(text_).ok());
  ASSERT_TRUE(session->save(path).ok());
  const int64_t count = with_faults([&] {
    const auto restored = engine_->restore_session(path);
    if (files_.fail_at < 0 || files_.writes_only) {
      ASSERT_TRUE(restored.ok()) << restored.status().message();
    }
    if (restored.ok()) {
      ASSERT_EQ((*restored)->length(), 192);
      expect_right(**restored);
    } else {
      ASSERT_THAT(restored.status().message(), HasSubstr("fails on purpose"));
      ASSERT_EQ(engine_->cache_bytes(), 0);
    }
  });
  EXPECT_GE(count, 8);
}

TEST_F(SessionFault, KeepingNeverHarmsReading) {
  const std::string path = folder_ / "s";
  int64_t kept_nothing = 0, kept_some = 0, kept_all = 0;
  with_faults([&] {
    std::filesystem::remove(path);
    {
      const auto session = session_of(*engine_);
      const Status keeping = session->keep(path, "label");
      ASSERT_TRUE(session->append(std::span(text_).first(64)).ok());
      ASSERT_TRUE(session->append(std::span(text_).subspan(64)).ok());
      if (!session->keeping().ok()) {
        ASSERT_THAT(session->keeping().message(), HasSubstr("fails on purpose"));
      }
      expect_right(*session);
    }
    const int64_t kept = holds(path, text_);
    (kept <= 0 ? kept_nothing : kept < 192 ? kept_some : kept_all) += 1;
    const auto again = session_of(*clean_);
    ASSERT_TRUE(again->append(text_).ok());
    ASSERT_TRUE(again->keep(path, "label").ok()) << "what a fault has left can be gone on with";
    ASSERT_EQ(holds(path, text_), 192);
  });
  EXPECT_GT(kept_nothing, 0);
  EXPECT_GT(kept_some, 0);
  EXPECT_GT(kept_all, 0);
}

// The same where nothing shall stay in memory that the file holds. What was moved there is right whatever fails later.
TEST_F(SessionFault, MovingToTheFileNeverHarmsReading) {
  const std::string path = folder_ / "s";
  engine_ = engine_of(1);
  int64_t moved_nothing = 0, moved_some = 0, moved_all = 0;
  with_faults([&] {
    std::filesystem::remove(path);
    {
      const auto session = session_of(*engine_);
      const Status kept = session->keep(path, "label");
      for (size_t at = 0; at < 192; at += 64) ASSERT_TRUE(session->append(std::span(text_).subspan(at, 64)).ok());
      const int64_t in_memory = engine_->cache_memory() * 3 / engine_->cache_bytes();  // of the three pages
      (in_memory == 3 ? moved_nothing : in_memory == 2 ? moved_some : moved_all) += 1;
      ASSERT_EQ(session->is_keeping(), kept.ok() && session->keeping().ok());
      if (!session->keeping().ok()) {
        ASSERT_THAT(session->keeping().message(), HasSubstr("fails on purpose"));
      }
      expect_right(*session);
    }
    ASSERT_GE(holds(path, text_), -1);
    const auto again = session_of(*clean_);
    ASSERT_TRUE(again->append(text_).ok());
    ASSERT_TRUE(again->keep(path, "label").ok()) << "what a fault has left can be gone on with";
    ASSERT_EQ(holds(path, text_), 192);
  });
  EXPECT_GT(moved_nothing, 0);
  EXPECT_GT(moved_some, 0);
  EXPECT_GT(moved_all, 0);
}

TEST_F(SessionFault, AStoreInTroubleIsNoError) {
  const std::string folder = folder_ / "sessions";
  const SessionStore faulty({.folder = folder, .files = &files_}), store({.folder = folder});
  const int64_t count = with_faults([&] {
    std::filesystem::remove_all(folder);
    {
      auto first = store.open_session(*clean_, text_, "label");
      ASSERT_TRUE(first.ok());
      ASSERT_TRUE(first->session->append(std::span(text_).first(128)).ok());
    }
    const TokenizedText source{"the text", false, text_};
    auto opened = faulty.open_session(*engine_, text_, "label", &source);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    ASSERT_TRUE(opened->reused == 0 || opened->reused == 64 || opened->reused == 128) << opened->reused;
    ASSERT_EQ(opened->session->length(), opened->reused);
    expect_right(*opened->session);
    const auto sessions = store.list();
    ASSERT_TRUE(sessions.ok());
    for (const StoredSession& s : *sessions) {
      if (s.bytes > 0) {
        ASSERT_EQ(s.damage, "");
      }
    }
  });
  EXPECT_GE(count, 20);
}

TEST_F(SessionFault, ADeviceThatTakesNoMore) {
  const std::string path = folder_ / "s";
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{80'000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto tight = engine_of(1);  // uses the first page where it lies in the file
  const auto session = session_of(*tight);
  const Status keeping = session->keep(path, "");
  const Status first = session->append(std::span(text_).first(64)), second = session->append(std::span(text_).subspan(64));
  const Status saved = session->save(folder_ / "other");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_TRUE(keeping.ok() && first.ok() && second.ok());
  EXPECT_THAT(session->keeping().message(), HasSubstr("cannot be written: File too large"));
  EXPECT_THAT(saved.message(), HasSubstr("cannot be written: File too large"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other.part"));
  EXPECT_EQ(holds(path, text_), 64);
  EXPECT_FALSE(session->is_keeping());
  EXPECT_LT(tight->cache_memory(), tight->cache_bytes());
  expect_right(*session);
}

TEST_F(SessionFault, AFolderThatTakesNoFiles) {
  const auto session = session_of(*clean_);
  ASSERT_TRUE(session->append(text_).ok());
  EXPECT_THAT(session->save("/sys/kernel/s").message(), HasSubstr("'/sys/kernel/s.part' cannot be opened"));
  EXPECT_THAT(session->keep("/sys/kernel/s", "").message(), HasSubstr("'/sys/kernel/s' cannot be opened"));
  expect_right(*session);
}

// A child that does `work` again and again until it is killed, `times` times.
template <typename F, typename G>
void kill_while(int times, const F& work, const G& check) {
  std::mt19937_64 random(3);
  for (int i = 0; i < times; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      while (true) work();
    }
    usleep(static_cast<useconds_t>(200 + random() % (20'000 * (1 + static_cast<uint64_t>(i) / 4))));  // longer, for slow machines
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    check();
  }
}

TEST_F(SessionFault, KilledWhileSaving) {
  const std::string path = folder_ / "s";
  const auto a = session_of(*clean_), b = session_of(*clean_);
  ASSERT_TRUE(a->append(old_).ok());
  ASSERT_TRUE(b->append(text_).ok());
  ASSERT_TRUE(a->save(path).ok());
  int turn = 0;
  const auto save = [&] { static_cast<void>((++turn % 2 == 0 ? a : b)->save(path)); };
  kill_while(40, save, [&] {
    const auto session = clean_->restore_session(path);
    ASSERT_TRUE(session.ok()) << session.status().message();
    ASSERT_TRUE((*session)->length() == 128 || (*session)->length() == 192);
  });
  ASSERT_TRUE(a->save(path).ok()) << "what a killed process has left is in nobody's way";
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
}

TEST_F(SessionFault, KilledWhileReading) {
  const std::string path = folder_ / "s";
  const std::vector<TokenId> text = tiny_text(6400);
  std::vector<int64_t> kept;
  const auto read = [&] {
    const auto session = session_of(*clean_);
    unlink(path.c_str());
    if (!session->keep(path, "").ok()) _exit(1);
    for (size_t at = 0; at < text.size(); at += 64) static_cast<void>(session->append(std::span(text).subspan(at, 64)));
  };
  kill_while(40, read, [&] {
    if (!std::filesystem::exists(path) || std::filesystem::file_size(path) == 0) return;
    kept.push_back(holds(path, text));
    ASSERT_GE(kept.back(), 0);
  });
  EXPECT_GT(*std::max_element(kept.begin(), kept.end()), 0);
}

TEST_F(SessionFault, TwoProcessesAtOneFile) {
  const std::string path = folder_ / "s";
  int ready[2], done[2];
  ASSERT_TRUE(pipe(ready) == 0 && pipe(done) == 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  char byte = 0;
  if (child == 0) {
    const auto session = session_of(*clean_);
    const bool kept = session->keep(path, "").ok() && session->append(std::span(text_).first(128)).ok();
    if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1) _exit(2);
    const bool went_on = session->append(std::span(text_).subspan(128)).ok() && session->keeping().ok();
    _exit(kept && went_on ? 0 : 1);
  }
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  Result<std::unique_ptr<Session>> session = clean_->restore_session(path);
  ASSERT_TRUE(session.ok()) << "a reader needs no lock: " << session.status().message();
  EXPECT_EQ((*session)->length(), 128);
  EXPECT_THAT((*session)->keep(path, "").message(), HasSubstr("is being written by another process"));
  ASSERT_EQ(write(done[1], &byte, 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(holds(path, text_), 192);
  EXPECT_TRUE((*session)->keep(path, "").code() == Code::invalid_argument) << "the file now holds more than this session";
  expect_right(**session);
  for (const int fd : {ready[0], ready[1], done[0], done[1]}) close(fd);
}

}  // namespace
}  // namespace bough
