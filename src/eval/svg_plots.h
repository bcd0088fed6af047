// Results as drawings: length by depth, recall by layer and head, cost against quality.
#pragma once

#include <string>
#include <vector>

#include "eval/result_lines.h"

namespace bough::eval {

struct Plot {
  std::string name;  // of a file, "heat-passkey-book.svg"; no two are equal
  std::string svg;
};

// A heat map of length by depth for each task, text and model whose figure is a share, with a panel for each plan; recall by layer and
// head for each text, length and model of the task mass; cost against quality, one point a plan, for each of both where there are
// several plans.
std::vector<Plot> draw_results(const ResultLines& lines);

// The single drawings. REQUIRES: at least one line; all of one task, text and model, of masses also of one length.
std::string draw_heat(const std::vector<ResultLine>& cells);
std::string draw_recall(const std::vector<MassRecord>& masses);

// One point a plan.
struct CostPoint {
  std::string plan;
  double cost = 0;
  double value = 0;
};
struct CostLabels {
  std::string title;
  std::string subtitle;
  std::string cost;   // of the axis, with its unit
  std::string value;  // of the axis
};
// REQUIRES: at least one point.
std::string draw_cost(const std::vector<CostPoint>& points, const CostLabels& labels);

}  // namespace bough::eval
