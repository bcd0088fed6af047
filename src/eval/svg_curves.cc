// draw_recall and draw_cost.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "eval/svg.h"
#include "eval/svg_plots.h"

namespace bough::eval {
namespace {

constexpr double kWidth = 900, kLeft = 80, kRight = 870;
constexpr double kPanelHeight = 200, kLegend = 20;

std::string series(size_t index) { return "s" + std::to_string(index % Svg::kSeries); }

void share_axis(Svg& svg, const Scale& y, const std::string& name) {
  for (int i = 0; i <= 5; ++i) {
    const double share = i * 0.2;
    svg.line({kLeft, y.at(share)}, {kRight, y.at(share)}, "grid");
    svg.text({kLeft - 8, y.at(share) + 4}, decimal(share, 1), "small faint", Anchor::end);
  }
  svg.text({kLeft, y.end - 8}, name, "");
}

class Recall {
 public:
  explicit Recall(const std::vector<MassRecord>& masses) : masses_(masses) {
    std::vector<std::string> plans;
    for (const MassRecord& m : masses) {
      plans.push_back(m.plan);
      for (const LayerMass& l : m.report.layers) {
        last_layer_ = std::max(last_layer_, l.layer);
        heads_ = std::max(heads_, l.heads.size());
      }
    }
    words_ = plan_words(plans);
  }

  std::string draw() {
    const MassRecord& first = masses_.front();
    const double curves = 84 + kLegend * static_cast<double>(masses_.size());
    const double grids = curves + 2 * (kPanelHeight + 64);
    const double grid_height = 18 * static_cast<double>(heads_) + 62;
    const std::string title = "Recall by layer: " + first.text + ", " + std::to_string(first.length) + " tokens";
    Svg svg(kWidth, grids + grid_height * static_cast<double>(masses_.size()), title);
    svg.text({20, 28}, title, "title");
    svg.text({20, 48}, first.model + "; full line: the plan, dashed: the exact selection of as many chunks, dotted: a random one", "faint");
    legend(svg);
    curve(svg, curves, "share of the attention outside sinks and window", {&MassShares::kept, &MassShares::best, &MassShares::random});
    curve(svg, curves + kPanelHeight + 64, "share of each head's heaviest chunks",
          {&MassShares::top_kept, &MassShares::top_best, &MassShares::top_random});
    for (size_t i = 0; i < masses_.size(); ++i) head_grid(svg, grids + grid_height * static_cast<double>(i), i);
    return svg.finish();
  }

 private:
  double layer_x(double layer) const { return Scale{-0.5, last_layer_ + 0.5, kLeft, kRight}.at(layer); }

  void layer_axis(Svg& svg, double y) const {
    const int step = std::max(1, static_cast<int>(tick_step(last_layer_ + 1, 16)));
    for (int layer = 0; layer <= last_layer_; layer += step)
      svg.text({layer_x(layer), y}, std::to_string(layer), "small faint", Anchor::middle);
  }

  void legend(Svg& svg) const {
    for (size_t i = 0; i < masses_.size(); ++i) {
      const double y = 68 + kLegend * static_cast<double>(i);
      svg.line({20, y - 4}, {50, y - 4}, "line " + series(i));
      svg.text({58, y}, words_[i] == masses_[i].plan ? words_[i] : words_[i] + " is " + masses_[i].plan, "small");
    }
  }

  void curve(Svg& svg, double top, const std::string& name, const std::vector<double MassShares::*>& lines) const {
    const Scale y{0, 1, top + kPanelHeight, top + 14};
    share_axis(svg, y, name);
    layer_axis(svg, top + kPanelHeight + 18);
    const char* const style[] = {"line ", "dashed ", "dotted "};
    for (size_t i = 0; i < masses_.size(); ++i) {
      for (size_t k = lines.size(); k-- > 0;) {
        std::vector<Point> points;
        for (const LayerMass& l : masses_[i].report.layers) points.push_back({layer_x(l.layer), y.at(l.all.*lines[k])});
        svg.polyline(points, style[k] + series(i));
      }
      for (const LayerMass& l : masses_[i].report.layers) {
        svg.circle({layer_x(l.layer), y.at(l.all.*lines[0])}, 3, "dot " + series(i),
                   words_[i] + ", layer " + std::to_string(l.layer) + ": " + decimal(l.all.*lines[0], 4));
      }
    }
  }

  void head_grid(Svg& svg, double top, size_t i) const {
    svg.text({kLeft, top + 8}, words_[i] + ": share of the attention outside that is kept, by head (down) and layer (across)", "");
    const double wide = layer_x(1) - layer_x(0);
    for (const LayerMass& l : masses_[i].report.layers) {
      for (size_t h = 0; h < l.heads.size(); ++h) {
        const double value = l.heads[h].kept;
        svg.heat({layer_x(l.layer) - wide / 2, top + 18 + 18 * static_cast<double>(h)}, wide - 1, 17, value,
                 wide > 30 ? decimal(value, 2) : "",
                 words_[i] + ", layer " + std::to_string(l.layer) + ", head " + std::to_string(h) + ": " + decimal(value, 4) + " kept, " +
                     decimal(l.heads[h].top_kept, 4) + " of its heaviest chunks");
      }
    }
    for (size_t h = 0; h < heads_; ++h) {
      svg.text({kLeft - 8, top + 31 + 18 * static_cast<double>(h)}, std::to_string(h), "small faint", Anchor::end);
    }
    layer_axis(svg, top + 34 + 18 * static_cast<double>(heads_));
  }

  const std::vector<MassRecord>& masses_;
  std::vector<std::string> words_;
  int last_layer_ = 0;
  size_t heads_ = 0;
};

// From 0 to a little beyond the largest value.
Scale axis_from_zero(double largest, double begin, double end) {
  if (!(largest > 0)) largest = 1;
  const double step = tick_step(largest, 6);
  return {0, std::ceil(largest * 1.05 / step) * step, begin, end};
}

}  // namespace

std::string draw_recall(const std::vector<MassRecord>& masses) { return Recall(masses).draw(); }

std::string draw_cost(const std::vector<CostPoint>& points, const CostLabels& labels) {
  constexpr double top = 76, bottom = 420;
  double cost = 0, value = 0;
  std::vector<std::string> plans;
  for (const CostPoint& p : points) {
    cost = std::max(cost, p.cost);
    value = std::max(value, p.value);
    plans.push_back(p.plan);
  }
  const std::vector<std::string> words = plan_words(plans);
  const Scale x = axis_from_zero(cost, kLeft, kRight), y = axis_from_zero(value, bottom, top);
  Svg svg(kWidth, bottom + 60 + kLegend * static_cast<double>(points.size()), labels.title);
  svg.text({20, 28}, labels.title, "title");
  svg.text({20, 48}, labels.subtitle, "faint");
  for (double tick = 0; tick <= x.to * 1.0001; tick += tick_step(x.to, 6)) {
    svg.line({x.at(tick), top}, {x.at(tick), bottom}, "grid");
    svg.text({x.at(tick), bottom + 17}, decimal(tick, 6), "small faint tick-x", Anchor::middle);
  }
  for (double tick = 0; tick <= y.to * 1.0001; tick += tick_step(y.to, 6)) {
    svg.line({kLeft, y.at(tick)}, {kRight, y.at(tick)}, "grid");
    svg.text({kLeft - 8, y.at(tick) + 4}, decimal(tick, 6), "small faint tick-y", Anchor::end);
  }
  svg.text({(kLeft + kRight) / 2, bottom + 36}, labels.cost, "small", Anchor::middle);
  svg.text({kLeft, top - 8}, labels.value, "small");
  for (size_t i = 0; i < points.size(); ++i) {
    const Point at{x.at(points[i].cost), y.at(points[i].value)};
    const bool right = at.x > kRight - 120;
    svg.circle(at, 5, "dot " + series(i), words[i] + ": " + decimal(points[i].cost, 4) + ", " + decimal(points[i].value, 4));
    svg.text({at.x + (right ? -9 : 9), at.y + 4}, words[i], "small", right ? Anchor::end : Anchor::start);
    const double row = bottom + 60 + kLegend * static_cast<double>(i);
    svg.circle({28, row - 4}, 5, "dot " + series(i));
    svg.text({42, row},
             words[i] + ": " + decimal(points[i].cost, 4) + ", " + decimal(points[i].value, 4) +
                 (words[i] == points[i].plan ? "" : "; " + points[i].plan),
             "small");
  }
  return svg.finish();
}

}  // namespace bough::eval
