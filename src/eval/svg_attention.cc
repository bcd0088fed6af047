#include "eval/svg_attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "eval/svg.h"

namespace bough::eval {
namespace {

constexpr double kLeft = 120, kRight = 980, kWidth = 1000;
constexpr double kMassTop = 92, kDecade = 20;
constexpr int kDecades = 6;  // of the logarithmic scale, down from 1
constexpr double kAxis = kMassTop + kDecade * kDecades;
constexpr double kLanesTop = kAxis + kDecade * kDecades + 14, kLane = 20;
constexpr int64_t kMostBars = 430;

struct Part {
  const char* classes;
  const char* name;
  const std::vector<TokenRun>* runs;
};

std::string share_text(double share) { return decimal(share * 100, 2) + "%"; }

std::string tokens_text(const TokenRun& run) {
  if (run.end == run.begin + 1) return "token " + std::to_string(run.begin);
  return "tokens " + std::to_string(run.begin) + " to " + std::to_string(run.end - 1);
}

class Drawing {
 public:
  Drawing(const AttentionTrace& trace, const AttentionShares& shares, const AttentionLabels& labels)
      : trace_(trace),
        shares_(shares),
        labels_(labels),
        tokens_(static_cast<int64_t>(trace.mass.size())),
        parts_{{{"sinks", "sinks", &trace.sinks}, {"selected", "selected", &trace.selected}, {"window", "window", &trace.window}}},
        lanes_(static_cast<int>(trace.stages.size()) + 2),
        axis_y_(kLanesTop + kLane * lanes_),
        x_{0, static_cast<double>(tokens_), kLeft, kRight},
        svg_(kWidth, axis_y_ + 72 + 18 * static_cast<double>(shares.blocks.size()), labels.title) {}

  std::string draw() {
    svg_.text({20, 28}, labels_.title, "title");
    svg_.text({20, 48}, labels_.subtitle, "faint");
    legend();
    axes();
    bars();
    lanes();
    missed_list();
    return svg_.finish();
  }

 private:
  void legend() {
    double x = 20;
    const auto entry = [&](const char* classes, const std::string& text) {
      svg_.rect({x, 60}, 12, 12, classes);
      svg_.text({x + 17, 70}, text, "small");
      x += 30 + 6.2 * static_cast<double>(text.size());
    };
    entry("sinks", "sinks " + share_text(shares_.sinks));
    entry("selected", "selected " + share_text(shares_.selected));
    entry("window", "window " + share_text(shares_.window));
    entry("missed", "missed " + share_text(shares_.missed));
    if (!trace_.stages.empty()) entry("stage", "kept by a stage");
  }

  void axes() {
    const double bottom = kAxis + kDecade * kDecades;
    for (int d = 0; d <= kDecades; d += 2) {
      const std::string label = d == 0 ? "1" : "1e-" + std::to_string(d);
      for (const double y : {kMassTop + kDecade * d, bottom - kDecade * d}) {
        svg_.line({kLeft, y}, {kRight, y}, "grid");
        if (d < kDecades) svg_.text({kLeft - 6, y + 4}, label, "small faint", Anchor::end);
      }
    }
    svg_.text({20, kMassTop + 16}, "attention", "small");
    svg_.text({20, kMassTop + 30}, "in context", "small");
    svg_.text({20, bottom - 20}, "attention", "small");
    svg_.text({20, bottom - 6}, "missed", "small");
    svg_.line({kLeft, kAxis}, {kRight, kAxis}, "frame");
    const double step = std::max(1.0, tick_step(static_cast<double>(tokens_), 8));
    for (double t = 0; t <= static_cast<double>(tokens_); t += step) {
      svg_.line({x_.at(t), kMassTop}, {x_.at(t), axis_y_ + 4}, "grid");
      svg_.text({x_.at(t), axis_y_ + 18}, decimal(t, 0), "small tick", Anchor::middle);
    }
    svg_.line({kLeft, axis_y_}, {kRight, axis_y_}, "frame");
    svg_.text({(kLeft + kRight) / 2, axis_y_ + 36}, "token", "small faint", Anchor::middle);
  }

  static double height(double mass) { return mass <= 0 ? 0 : std::clamp(kDecade * (kDecades + std::log10(mass)), 0.0, kDecade * kDecades); }

  // Of [begin, end): the attention on each part of the context.
  std::array<double, 3> seen(TokenRun bar) const {
    std::array<double, 3> mass{};
    for (size_t p = 0; p < parts_.size(); ++p) {
      const std::vector<TokenRun>& runs = *parts_[p].runs;
      auto run = std::lower_bound(runs.begin(), runs.end(), bar.begin, [](const TokenRun& r, int64_t t) { return r.end <= t; });
      for (; run != runs.end() && run->begin < bar.end; ++run) {
        for (int64_t t = std::max(run->begin, bar.begin); t < std::min(run->end, bar.end); ++t) {
          mass[p] += static_cast<double>(trace_.mass[static_cast<size_t>(t)]);
        }
      }
    }
    return mass;
  }

  void bars() {
    const int64_t most = trace_.chunk * kMostBars;
    const int64_t width = tokens_ <= kMostBars ? 1 : (tokens_ + most - 1) / most * trace_.chunk;
    for (int64_t begin = 0; begin < tokens_; begin += width) {
      const TokenRun bar{begin, std::min(begin + width, tokens_)};
      const std::array<double, 3> parts = seen(bar);
      double all = 0;
      for (int64_t t = bar.begin; t < bar.end; ++t) all += static_cast<double>(trace_.mass[static_cast<size_t>(t)]);
      const double held = parts[0] + parts[1] + parts[2], missed = std::max(0.0, all - held);
      const auto kind = static_cast<size_t>(std::max_element(parts.begin(), parts.end()) - parts.begin());
      const double x = x_.at(static_cast<double>(bar.begin)), wide = x_.at(static_cast<double>(bar.end)) - x;
      const std::string hover = tokens_text(bar) + ": ";
      if (height(held) > 0) {
        svg_.rect({x, kAxis - height(held)}, wide, height(held), parts_[kind].classes, hover + share_text(held) + " in context");
      }
      if (height(missed) > 0) svg_.rect({x, kAxis}, wide, height(missed), "missed", hover + share_text(missed) + " missed");
    }
  }

  void lane(int index, const std::string& name) {
    svg_.text({20, kLanesTop + kLane * index + 11}, name, "small");
    svg_.line({kLeft, kLanesTop + kLane * index + 15}, {kRight, kLanesTop + kLane * index + 15}, "grid");
  }

  void block(int index, const TokenRun& run, const char* classes, const std::string& hover) {
    const double x = x_.at(static_cast<double>(run.begin)), wide = x_.at(static_cast<double>(run.end)) - x;
    svg_.rect({x, kLanesTop + kLane * index + 2}, wide, 12, classes, hover);
  }

  void lanes() {
    int index = 0;
    for (const StageTrace& stage : trace_.stages) {
      lane(index, "stage " + std::to_string(index + 1) + ", by " + std::to_string(stage.chunk));
      for (const TokenRun& run : stage.kept) block(index, run, "stage", tokens_text(run));
      ++index;
    }
    lane(index, "context");
    for (const Part& part : parts_) {
      for (const TokenRun& run : *part.runs)
        block(index, run, (std::string(part.classes) + " context").c_str(), std::string(part.name) + ", " + tokens_text(run));
    }
    lane(++index, "missed most");
    for (size_t i = 0; i < shares_.blocks.size(); ++i) {
      const MissedBlock& b = shares_.blocks[i];
      block(index, b.tokens, "missed top", std::to_string(i + 1) + ": " + tokens_text(b.tokens) + ", " + share_text(b.mass));
    }
  }

  void missed_list() {
    for (size_t i = 0; i < shares_.blocks.size(); ++i) {
      const MissedBlock& b = shares_.blocks[i];
      std::string line = std::to_string(i + 1) + ". " + tokens_text(b.tokens) + ", " + share_text(b.mass) + " of the attention";
      if (i < labels_.excerpts.size()) line += ": " + labels_.excerpts[i];
      svg_.text({20, axis_y_ + 64 + 18 * static_cast<double>(i)}, line, "small");
    }
  }

  const AttentionTrace& trace_;
  const AttentionShares& shares_;
  const AttentionLabels& labels_;
  int64_t tokens_;
  std::array<Part, 3> parts_;
  int lanes_;
  double axis_y_;
  Scale x_;
  Svg svg_;
};

}  // namespace

std::string draw_attention(const AttentionTrace& trace, const AttentionShares& shares, const AttentionLabels& labels) {
  return Drawing(trace, shares, labels).draw();
}

}  // namespace bough::eval
