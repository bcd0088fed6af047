// draw_heat: length by depth, a panel for each plan.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "eval/svg.h"
#include "eval/svg_plots.h"

namespace bough::eval {
namespace {

constexpr double kCellWidth = 62, kCellHeight = 26, kLeft = 90, kTop = 62, kGap = 28, kPanelTitle = 22, kPanelFoot = 40;
constexpr double kWhole = -1;  // stands for the depth of a cell about the whole text

struct Mean {
  double sum = 0;
  int count = 0;
  double value() const { return sum / count; }
};

struct Panel {
  std::string plan;
  std::map<std::pair<double, int64_t>, Mean> cells;  // by depth and length
};

struct Grid {
  std::vector<Panel> panels;  // in the plans' order
  std::vector<int64_t> lengths;
  std::vector<double> depths;
};

Grid grid_of(const std::vector<ResultLine>& cells) {
  Grid grid;
  std::set<int64_t> lengths;
  std::set<double> depths;
  for (const ResultLine& l : cells) {
    const double depth = l.depth.value_or(kWhole);
    lengths.insert(l.length);
    depths.insert(depth);
    auto panel = std::find_if(grid.panels.begin(), grid.panels.end(), [&](const Panel& p) { return p.plan == l.plan; });
    if (panel == grid.panels.end()) panel = grid.panels.insert(grid.panels.end(), Panel{l.plan, {}});
    Mean& mean = panel->cells[{depth, l.length}];
    mean.sum += l.figure.value;
    mean.count += 1;
  }
  grid.lengths.assign(lengths.begin(), lengths.end());
  grid.depths.assign(depths.begin(), depths.end());
  return grid;
}

std::string depth_text(double depth) { return depth == kWhole ? "whole text" : decimal(depth * 100, 1) + "%"; }

void draw_panel(Svg& svg, const Grid& grid, const Panel& panel, const std::string& name, const std::string& figure, double y) {
  const double top = y + kPanelTitle;
  svg.text({kLeft, y + 14}, name, "");
  for (size_t row = 0; row < grid.depths.size(); ++row) {
    const double cell_y = top + kCellHeight * static_cast<double>(row);
    svg.text({kLeft - 8, cell_y + kCellHeight / 2 + 4}, depth_text(grid.depths[row]), "small faint", Anchor::end);
    for (size_t column = 0; column < grid.lengths.size(); ++column) {
      const double cell_x = kLeft + kCellWidth * static_cast<double>(column);
      const auto found = panel.cells.find({grid.depths[row], grid.lengths[column]});
      if (found == panel.cells.end()) {
        svg.rect({cell_x, cell_y}, kCellWidth - 1, kCellHeight - 1, "frame", "not measured");
        continue;
      }
      const double value = found->second.value();
      svg.heat({cell_x, cell_y}, kCellWidth - 1, kCellHeight - 1, value, decimal(value, 2),
               name + ", " + std::to_string(grid.lengths[column]) + " tokens, depth " + depth_text(grid.depths[row]) + ": " + figure + " " +
                   decimal(value, 3));
    }
  }
  const double bottom = top + kCellHeight * static_cast<double>(grid.depths.size());
  for (size_t column = 0; column < grid.lengths.size(); ++column) {
    svg.text({kLeft + kCellWidth * (static_cast<double>(column) + 0.5), bottom + 15}, std::to_string(grid.lengths[column]), "small faint",
             Anchor::middle);
  }
}

}  // namespace

std::string draw_heat(const std::vector<ResultLine>& cells) {
  const Grid grid = grid_of(cells);
  std::vector<std::string> plans;
  for (const Panel& panel : grid.panels) plans.push_back(panel.plan);
  const std::vector<std::string> words = plan_words(plans);
  const ResultLine& first = cells.front();
  const double panel_height = kPanelTitle + kCellHeight * static_cast<double>(grid.depths.size()) + kPanelFoot;
  const double width = std::max(640.0, kLeft + kCellWidth * static_cast<double>(grid.lengths.size()) + 30);
  const std::string title = first.task + " in " + first.text + ": " + first.figure.name + " by length and depth";
  Svg svg(width, kTop + (panel_height + kGap) * static_cast<double>(plans.size()) + 10, title);
  svg.text({20, 28}, title, "title");
  svg.text({20, 48}, first.model + "; across: tokens, down: depth in the text", "faint");
  for (size_t i = 0; i < plans.size(); ++i) {
    const double y = kTop + (panel_height + kGap) * static_cast<double>(i);
    draw_panel(svg, grid, grid.panels[i], words[i], first.figure.name, y);
    if (words[i] != plans[i]) svg.text({20, y + panel_height}, words[i] + " is " + plans[i], "small faint");
  }
  return svg.finish();
}

}  // namespace bough::eval
