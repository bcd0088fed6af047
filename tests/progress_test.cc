// The text of progress bars and lines; the files belong to the program, not to a library.
#include <gtest/gtest.h>

// NOLINTNEXTLINE(bugprone-suspicious-include)
#include "../apps/bough/format.cc"
// NOLINTNEXTLINE(bugprone-suspicious-include)
#include "../apps/bough/progress.cc"

namespace bough::cli {
namespace {

TEST(Format, GroupsDigits) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(131072), "131,072");
  EXPECT_EQ(grouped(1234567890), "1,234,567,890");
  EXPECT_EQ(grouped(-1000), "-1,000");
  EXPECT_EQ(grouped(-999), "-999");
}

TEST(Format, Durations) {
  EXPECT_EQ(duration_text(0), "0.0 s");
  EXPECT_EQ(duration_text(9.94), "9.9 s");
  EXPECT_EQ(duration_text(9.96), "10 s");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(324), "5:24");
  EXPECT_EQ(duration_text(3924), "1:05:24");
  EXPECT_EQ(duration_text(-1), "?");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "?");
}

TEST(Format, Bytes) {
  EXPECT_EQ(byte_text(0), "0 bytes");
  EXPECT_EQ(byte_text(999), "999 bytes");
  EXPECT_EQ(byte_text(98'100'000), "98.1 MB");
  EXPECT_EQ(byte_text(999'960), "1.0 MB");
}

TEST(ProgressBar, ShowsShareTokensRateAndTimeLeft) {
  EXPECT_EQ(progress_bar("reading", 100, 500, 1000, 2),
            "reading  50% [####################--------------------]  500/1,000 tokens  250 tokens/s  2.0 s left");
}

TEST(ProgressBar, NeverExceedsTheWidth) {
  for (int width = 0; width <= 140; ++width) {
    EXPECT_LE(progress_bar("reading", width, 48512, 131072, 191).size(), static_cast<size_t>(width)) << width;
  }
}

TEST(ProgressBar, DropsTheBarBeforeTheNumbers) {
  const std::string narrow = progress_bar("reading", 60, 48512, 131072, 191);
  EXPECT_EQ(narrow.find('['), std::string::npos);
  EXPECT_NE(narrow.find("48,512/131,072 tokens"), std::string::npos);
  EXPECT_NE(narrow.find("left"), std::string::npos);
}

TEST(ProgressBar, NothingKnownYet) {
  const std::string bar = progress_bar("reading", 80, 0, 1000, 0);
  EXPECT_NE(bar.find("  0%"), std::string::npos);
  EXPECT_EQ(bar.find("left"), std::string::npos);
}

TEST(ProgressBar, ClampsNumbersOutOfRange) {
  EXPECT_NE(progress_bar("r", 80, 2000, 1000, 1).find("100%"), std::string::npos);
  EXPECT_NE(progress_bar("r", 80, -5, 1000, 1).find("0/1,000"), std::string::npos);
  EXPECT_NE(progress_bar("r", 80, 0, 0, 0).find("100%"), std::string::npos);
}

TEST(ProgressLine, IsOneSentence) {
  EXPECT_EQ(progress_line("reading", 48512, 131072, 191), "reading: 48,512 of 131,072 tokens (37%), 254 tokens/s, 5:25 left");
}

TEST(ProgressJson, HasNullsUntilSomethingIsKnown) {
  EXPECT_EQ(progress_json(0, 10, 0),
            R"({"event":"progress","done":0,"total":10,"seconds":0.000,"tokens_per_second":null,"seconds_left":null})");
  EXPECT_EQ(progress_json(5, 10, 1),
            R"({"event":"progress","done":5,"total":10,"seconds":1.000,"tokens_per_second":5.00,"seconds_left":1.00})");
}

TEST(LineSchedule, SparseAndWithAnEnd) {
  LineSchedule schedule;
  EXPECT_FALSE(schedule.due(10, 1000, 6)) << "time, but no share";
  EXPECT_FALSE(schedule.due(100, 1000, 4)) << "share, but no time";
  EXPECT_TRUE(schedule.due(100, 1000, 5));
  EXPECT_FALSE(schedule.due(150, 1000, 7));
  EXPECT_TRUE(schedule.due(1000, 1000, 8)) << "the end is always told";
  EXPECT_FALSE(schedule.due(1000, 1000, 20)) << "once";
}

TEST(LineSchedule, SilentWhenAllWasQuick) {
  LineSchedule schedule;
  EXPECT_FALSE(schedule.due(1000, 1000, 1));
}

TEST(LineSchedule, AtMostTwentyLines) {
  LineSchedule schedule;
  int lines = 0;
  for (int i = 1; i <= 1000; ++i) lines += schedule.due(i, 1000, i * 10.0) ? 1 : 0;
  EXPECT_EQ(lines, 20);
}

}  // namespace
}  // namespace bough::cli
