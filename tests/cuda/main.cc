// Runs the tests on a CUDA device. Without one it says so and exits with 77. Tests that the build or the device cannot run are named at
// the end, with the reason: they have not passed.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

constexpr int kNoDevice = 77;

class SkippedTests : public testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const testing::TestInfo& test) override {
    for (int i = 0; i < test.result()->total_part_count(); ++i) {
      const testing::TestPartResult& part = test.result()->GetTestPartResult(i);
      if (part.skipped()) skipped_.push_back(std::string(test.test_suite_name()) + "." + test.name() + ": " + part.message());
    }
  }
  void OnTestProgramEnd(const testing::UnitTest& /*all*/) override {
    if (skipped_.empty()) return;
    std::printf("NOT RUN, %zu tests:\n", skipped_.size());
    for (const std::string& test : skipped_) std::printf("  %s\n", test.c_str());
  }

 private:
  std::vector<std::string> skipped_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no CUDA device\n");
    return kNoDevice;
  }
  testing::UnitTest::GetInstance()->listeners().Append(new SkippedTests);
  return RUN_ALL_TESTS();
}
