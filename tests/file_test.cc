// Views of files: what they promise while the file is written to, removed or cut.
#include "base/file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "support/temp_folder.h"

namespace bough {
namespace {

using test::file_bytes;
using test::write_file;

class FileViews : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i % 251);
    write_file(path_, bytes_);
    Result<std::unique_ptr<File>> file = machine_files().open(path_, OpenMode::update);
    ASSERT_TRUE(file.ok());
    file_ = std::move(*file);
  }

  test::TempFolder folder_;
  std::string path_ = folder_ / "f";
  std::vector<std::byte> bytes_ = std::vector<std::byte>(100'000);
  std::unique_ptr<File> file_;
};

TEST_F(FileViews, HoldWhatTheFileHolds) {
  const auto view = file_->map(0, 70'000);
  ASSERT_TRUE(view.ok());
  file_.reset();
  ASSERT_TRUE(std::filesystem::remove(path_));
  ASSERT_TRUE(fetch(view->get() + 4000, 60'000).ok());
  EXPECT_EQ(std::memcmp(view->get(), bytes_.data(), 70'000), 0);
}

TEST_F(FileViews, BeginAnywhere) {
  for (const uint64_t offset : {64u, 4096u, 5056u, 99'999u}) {
    const auto view = file_->map(offset, bytes_.size() - offset);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(std::memcmp(view->get(), bytes_.data() + offset, bytes_.size() - offset), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->get()) % 4096, offset % 4096);
    EXPECT_EQ(file_->map(offset, bytes_.size() - offset + 1).status().code(), Code::corrupt);
  }
}

TEST_F(FileViews, DoNotHoldTheLock) {
  ASSERT_TRUE(*file_->try_lock());
  const auto view = file_->map(0, 1000);
  const auto other = machine_files().open(path_, OpenMode::update);
  ASSERT_TRUE(view.ok() && other.ok());
  EXPECT_FALSE(*(*other)->try_lock());
  file_.reset();
  EXPECT_TRUE(*(*other)->try_lock());
}

TEST_F(FileViews, ChangesStayInTheView) {
  const auto view = file_->map(0, bytes_.size());
  ASSERT_TRUE(view.ok());
  std::memset(view->get(), 0, bytes_.size());
  EXPECT_EQ(file_bytes(path_), bytes_);
}

TEST_F(FileViews, NothingBehindTheEnd) {
  EXPECT_EQ(file_->map(0, bytes_.size() + 1).status().code(), Code::corrupt);
  const auto none = file_->map(0, 0);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
}

// As a device that does not give its bytes back: an error, not the end of the process.
TEST_F(FileViews, FetchTellsOfWhatIsGone) {
  const auto view = file_->map(0, bytes_.size());
  ASSERT_TRUE(view.ok());
  ASSERT_TRUE(file_->truncate(10'000).ok());
  EXPECT_TRUE(fetch(view->get(), 10'000).ok());
  const Status gone = fetch(view->get() + 50'000, 1000);
  EXPECT_EQ(gone.code(), Code::io_error) << gone.message();
}

}  // namespace
}  // namespace bough
