#include "progress.h"

#include <algorithm>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

#include "format.h"

namespace bough::cli {
namespace {

struct View {
  int64_t done;
  int64_t total;
  double rate;  // tokens/s; 0 while nothing is known
  double left;  // seconds; negative while nothing is known
  int percent;
};

View view_of(int64_t done, int64_t total, double seconds) {
  total = std::max<int64_t>(total, 0);
  done = std::clamp<int64_t>(done, 0, total);
  View view{done, total, 0, -1, total == 0 ? 100 : static_cast<int>(static_cast<double>(done) * 100.0 / static_cast<double>(total))};
  if (done > 0 && seconds > 0) {
    view.rate = static_cast<double>(done) / seconds;
    view.left = static_cast<double>(total - done) / view.rate;
  }
  return view;
}

std::string rate_and_left(const View& view, const char* separator) {
  if (view.rate <= 0) return {};
  return separator + rate_text(view.rate) + " tokens/s" + separator + duration_text(view.left) + " left";
}

int terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

std::string progress_bar(const std::string& label, int width, int64_t done, int64_t total, double seconds) {
  const View view = view_of(done, total, seconds);
  char percent[16];
  std::snprintf(percent, sizeof percent, "%3d%%", view.percent);
  const std::string head = label + " " + percent;
  const std::string speed = rate_and_left(view, "  ");
  const std::string count = "  " + grouped(view.done) + "/" + grouped(view.total) + " tokens";
  const auto columns = static_cast<size_t>(std::max(width, 0));

  const size_t without_bar = head.size() + count.size() + speed.size();
  constexpr size_t frame = 3;  // " [" and "]"
  constexpr size_t shortest = 8;
  constexpr size_t longest = 40;
  if (without_bar + frame + shortest <= columns) {
    const size_t cells = std::min(longest, columns - without_bar - frame);
    const size_t filled =
        view.total == 0
            ? cells
            : static_cast<size_t>(static_cast<double>(cells) * static_cast<double>(view.done) / static_cast<double>(view.total));
    return head + " [" + std::string(filled, '#') + std::string(cells - filled, '-') + "]" + count + speed;
  }
  if (without_bar <= columns) return head + count + speed;
  if (head.size() + speed.size() <= columns) return head + speed;
  return head.substr(0, columns);
}

std::string progress_line(const std::string& label, int64_t done, int64_t total, double seconds) {
  const View view = view_of(done, total, seconds);
  return label + ": " + grouped(view.done) + " of " + grouped(view.total) + " tokens (" + std::to_string(view.percent) + "%)" +
         rate_and_left(view, ", ");
}

std::string progress_json(int64_t done, int64_t total, double seconds) {
  const View view = view_of(done, total, seconds);
  return R"({"event":"progress","done":)" + std::to_string(view.done) + R"(,"total":)" + std::to_string(view.total) + R"(,"seconds":)" +
         fixed(std::max(seconds, 0.0), 3) + R"(,"tokens_per_second":)" + (view.rate > 0 ? fixed(view.rate, 2) : "null") +
         R"(,"seconds_left":)" + (view.left >= 0 ? fixed(view.left, 2) : "null") + "}";
}

bool LineSchedule::due(int64_t done, int64_t total, double seconds) {
  const bool time = seconds - last_seconds_ >= 5;
  const bool share = (done - last_done_) * 20 >= total;
  const bool end = any_ && done >= total && last_done_ < total;
  if (!end && !(time && share)) return false;
  last_seconds_ = seconds;
  last_done_ = done;
  any_ = true;
  return true;
}

void ProgressReporter::update(int64_t done, int64_t total, double seconds) {
  if (style_ != ProgressStyle::bar) {
    if (!schedule_.due(done, total, seconds)) return;
    const bool json = style_ == ProgressStyle::json;
    std::FILE* out = json ? stdout : stderr;
    std::fprintf(out, "%s\n", (json ? progress_json(done, total, seconds) : progress_line(label_, done, total, seconds)).c_str());
    std::fflush(out);
    return;
  }
  if (drawn_ && done < total && seconds - last_drawn_ < 0.1) return;
  last_drawn_ = seconds;
  drawn_ = true;
  std::fprintf(stderr, "\r%s\x1b[K", progress_bar(label_, terminal_width() - 1, done, total, seconds).c_str());
  std::fflush(stderr);
}

void ProgressReporter::clear() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

ProgressStyle progress_style(bool json) {
  if (json) return ProgressStyle::json;
  return isatty(STDERR_FILENO) != 0 ? ProgressStyle::bar : ProgressStyle::lines;
}

}  // namespace bough::cli
