// Text files: what was tokenized is found again for just the same text, and nothing else is taken for it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bough/session_store.h"
#include "kv/text_file.h"
#include "support/faulty_files.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using Tokens = std::optional<std::vector<TokenId>>;

class TextFileTest : public testing::Test {
 protected:
  Tokens read(const std::string& text, const TokenizerId& tokenizer = {7, true}) {
    Result<Tokens> tokens = read_text_file(machine_files(), path_, text, tokenizer);
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    return tokens.ok() ? *tokens : Tokens();
  }

  test::TempFolder folder_;
  std::string path_ = folder_ / "a.text";
  std::string text_ = "In the beginning was a text.";
  std::vector<TokenId> tokens_ = {5, 0, 49151, 17, 3};
};

TEST_F(TextFileTest, FindsTheVeryTextOfTheVeryTokenizer) {
  EXPECT_EQ(read(text_), Tokens());
  ASSERT_TRUE(write_text_file(machine_files(), path_, text_, tokens_, {7, true}).ok());
  EXPECT_EQ(read(text_), tokens_);
  EXPECT_EQ(read(text_, {7, false}), Tokens());
  EXPECT_EQ(read(text_, {8, true}), Tokens());
  EXPECT_EQ(read(text_ + "."), Tokens());
  std::string other = text_;
  other[3] = 'T';
  EXPECT_EQ(read(other), Tokens());
  EXPECT_EQ(read(""), Tokens());
  ASSERT_TRUE(write_text_file(machine_files(), path_, "", {}, {7, true}).ok()) << "takes the place of what was there";
  EXPECT_EQ(read(text_), Tokens());
  EXPECT_EQ(read(""), std::vector<TokenId>());
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
}

TEST_F(TextFileTest, AChangedByteOrACutIsNoText) {
  ASSERT_TRUE(write_text_file(machine_files(), path_, text_, tokens_, {7, true}).ok());
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path_));
  for (int64_t at = 0; at < size; ++at) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 16));
    file.close();
    EXPECT_EQ(read(text_), Tokens()) << at;
    file.open(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file.put(static_cast<char>(byte));
  }
  EXPECT_EQ(read(text_), tokens_);
  for (int64_t left = size - 1; left >= 0; left -= 5) {
    std::filesystem::resize_file(path_, static_cast<uint64_t>(left));
    EXPECT_EQ(read(text_), Tokens()) << left;
  }
}

TEST_F(TextFileTest, AFaultLeavesTheFileThatWasThere) {
  test::FaultyFiles files;
  ASSERT_TRUE(write_text_file(files, path_, "old", {}, {7, true}).ok());
  const int64_t count = files.operations;
  for (int64_t at = 0; at < count; ++at) {
    files = {};
    files.fail_at = at;
    EXPECT_FALSE(write_text_file(files, path_, text_, tokens_, {7, true}).ok()) << at;
    EXPECT_EQ(read("old"), std::vector<TokenId>()) << at;
  }
  EXPECT_GE(count, 4);
}

// Of a store: a text is found while its session is there, and goes with it.
class StoredText : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(engine_ != nullptr); }
  int64_t texts() const {
    int64_t count = 0;
    if (!std::filesystem::exists(folder_)) return 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) count += file.path().extension() == ".text" ? 1 : 0;
    return count;
  }
  // Puts other tokens than the tokenizer's beside a session, so that the test sees which ones come back.
  void keep(std::span<const TokenId> tokens) {
    const TokenizedText source{text_, false, tokens};
    Result<SessionStore::Opened> opened = store_.open_session(*engine_, prompt_, "label", &source);
    ASSERT_TRUE(opened.ok());
    ASSERT_TRUE(opened->session->append(std::span(prompt_).subspan(static_cast<size_t>(opened->reused))).ok());
  }
  std::vector<TokenId> tokens(bool add_bos = false) {
    Result<std::vector<TokenId>> found = store_.tokenize(*engine_, text_, add_bos);
    EXPECT_TRUE(found.ok()) << found.status().message();
    return found.ok() ? *found : std::vector<TokenId>();
  }

  test::TempFolder temporary_;
  std::string folder_ = temporary_ / "sessions";
  SessionStore store_{{.folder = folder_}};
  test::TinyFile file_{test::peaked_model()};
  std::unique_ptr<Engine> engine_ = file_.engine(test::kSmallPlan);
  std::vector<TokenId> prompt_ = test::tiny_text(200);
  std::string text_ = "a b a";
};

TEST_F(StoredText, IsFoundBesideItsSessionAndGoesWithIt) {
  const std::vector<TokenId> own = tokens(), with_bos = tokens(true), mark = {1, 2, 3, 4, 5, 6, 7};
  ASSERT_NE(own, mark);
  keep(mark);
  EXPECT_EQ(texts(), 1);
  EXPECT_EQ(tokens(), mark);
  EXPECT_EQ(tokens(true), with_bos) << "kept without the model's first token";
  text_ += " b";
  EXPECT_NE(tokens(), mark);
  keep(own);
  EXPECT_EQ(tokens(), own) << "the session's text is another one now";
  EXPECT_EQ(texts(), 1);
  const Result<std::vector<StoredSession>> sessions = store_.list();
  ASSERT_TRUE(sessions.ok() && sessions->size() == 1u);
  ASSERT_TRUE(store_.remove(sessions->at(0).id).ok());
  EXPECT_EQ(texts(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

// A file that the user has named is a session like others.
TEST_F(StoredText, NamesMayHaveDots) {
  keep(tokens());
  const std::string id = store_.list()->at(0).id;
  for (const std::string extension : {".session", ".text"}) {
    std::filesystem::rename(folder_ + "/" + id + extension, folder_ + "/my.book.v1" + extension);
  }
  ASSERT_EQ(store_.list()->at(0).id, "my.book.v1");
  ASSERT_TRUE(store_.remove("my.book.v1").ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(StoredText, CountsInTheBudget) {
  keep(tokens());
  const Result<std::vector<StoredSession>> with = store_.list();
  std::filesystem::remove(folder_ + "/" + with->at(0).id + ".text");
  const Result<std::vector<StoredSession>> without = store_.list();
  ASSERT_TRUE(with.ok() && without.ok() && without->size() == 1u);
  EXPECT_GT(with->at(0).bytes, without->at(0).bytes);
}

TEST_F(StoredText, TroubleWithFilesIsNoError) {
  const std::vector<TokenId> own = tokens();
  keep(own);
  test::FaultyFiles files;
  const SessionStore faulty({.folder = folder_, .files = &files});
  ASSERT_TRUE(faulty.tokenize(*engine_, text_, false).ok());
  const int64_t count = files.operations;
  ASSERT_GE(count, 4);
  for (int64_t at = 0; at < count; ++at) {
    files = {};
    files.fail_at = at;
    const Result<std::vector<TokenId>> found = faulty.tokenize(*engine_, text_, false);
    ASSERT_TRUE(found.ok()) << at;
    EXPECT_EQ(*found, own);
  }
}

}  // namespace
}  // namespace bough
