// What control groups leave of the machine's memory.
#include "base/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/temp_folder.h"

namespace bough {
namespace {

class Groups : public testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  GroupMemory of(const std::string& self) {
    write("self", self);
    return group_memory(folder_ / "self", folder_ / "fs");
  }
  void expect(const GroupMemory& memory, int64_t limit, int64_t available) {
    EXPECT_EQ(memory.limit, limit);
    EXPECT_EQ(memory.available, available);
  }

  test::TempFolder folder_;
};

TEST_F(Groups, NoneOrNoLimit) {
  expect(of(""), 0, 0);
  expect(of("4:memory:/a\n0::/\n"), 0, 0);
  write("fs/a/memory.max", "max\n");
  expect(of("0::/a\n"), 0, 0);
  expect(group_memory(folder_ / "none", folder_ / "none"), 0, 0);
}

TEST_F(Groups, TheLeastOfAllAbove) {
  write("fs/memory.max", "9000\n");
  expect(of("0::/\n"), 9000, 9000);
  write("fs/a/memory.max", "5000\n");
  write("fs/a/memory.current", "4500\n");
  write("fs/a/memory.stat", "anon 4000\ninactive_file 300\nactive_file 7\n");
  write("fs/a/b/memory.max", "7000\n");
  write("fs/a/b/memory.current", "100\n");
  expect(of("1:cpu:/\n0::/a/b\n"), 5000, 800);
  expect(of("0::/a/c\n"), 5000, 800);
  expect(of("0::/b\n"), 9000, 9000);
  write("fs/a/memory.current", "6000\n");
  EXPECT_EQ(of("0::/a\n").available, 1) << "none is not unknown";
}

TEST(Memory, OfThisMachine) {
  EXPECT_GT(total_memory(), int64_t{1} << 26);
  EXPECT_GT(available_memory(), 0);
  EXPECT_LE(available_memory(), total_memory());
  EXPECT_GT(peak_memory(), 0);
}

}  // namespace
}  // namespace bough
