// Progress of a long read: a bar that redraws itself on a terminal, a plain line now and then elsewhere, or JSON events.
#pragma once

#include <cstdint>
#include <string>

namespace bough::cli {

// One line that fits `width` columns: label, share, bar, tokens, rate, time left; what does not fit is left out, the bar first.
// Numbers out of range are clamped: done to 0..total.
std::string progress_bar(const std::string& label, int width, int64_t done, int64_t total, double seconds);

// The same as a sentence for logs: "reading: 48,512 of 131,072 tokens (37%), 254 tokens/s, 5:24 left".
std::string progress_line(const std::string& label, int64_t done, int64_t total, double seconds);

// One line of JSON: {"event":"progress","done":..,"total":..,"seconds":..,"tokens_per_second":..,"seconds_left":..}.
std::string progress_json(int64_t done, int64_t total, double seconds);

// Whether a plain line is due: both 5 s and 5% after the last one, and once at the end if any was written before.
class LineSchedule {
 public:
  bool due(int64_t done, int64_t total, double seconds);

 private:
  double last_seconds_ = 0;
  int64_t last_done_ = 0;
  bool any_ = false;
};

enum class ProgressStyle : uint8_t { bar, lines, json };

class ProgressReporter {
 public:
  ProgressReporter(std::string label, ProgressStyle style) : label_(std::move(label)), style_(style) {}
  ~ProgressReporter() { clear(); }
  ProgressReporter(const ProgressReporter&) = delete;
  ProgressReporter& operator=(const ProgressReporter&) = delete;

  void update(int64_t done, int64_t total, double seconds);
  void clear();  // wipes the bar, so that other output can follow

 private:
  std::string label_;
  ProgressStyle style_;
  LineSchedule schedule_;
  double last_drawn_ = -1;
  bool drawn_ = false;
};

// A bar if stderr is a terminal, otherwise lines; JSON events when `json`.
ProgressStyle progress_style(bool json);

}  // namespace bough::cli
