#include "eval/svg_plots.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace bough::eval {
namespace {

// Groups in the order in which their first line comes.
template <typename Line, typename KeyOf>
std::vector<std::vector<Line>> grouped_by(const std::vector<Line>& lines, KeyOf key_of) {
  std::vector<std::vector<Line>> groups;
  for (const Line& line : lines) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return key_of(g.front()) == key_of(line); });
    if (group == groups.end()) group = groups.insert(groups.end(), std::vector<Line>());
    group->push_back(line);
  }
  return groups;
}

// Letters, digits, dots and dashes; of a path the last part.
std::string file_part(const std::string& name) {
  std::string out = name.substr(name.find_last_of('/') + 1);
  for (char& c : out) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
    if (!plain) c = '_';
  }
  return out.substr(0, 60);
}

class Plots {
 public:
  explicit Plots(const ResultLines& lines) {
    for (const ResultLine& line : lines.cells) models_.insert(line.model);
    for (const MassRecord& mass : lines.masses) models_.insert(mass.model);
  }

  void add(const std::string& kind, std::vector<std::string> parts, const std::string& model, std::string svg) {
    std::string stem = kind;
    if (models_.size() > 1) parts.push_back(model);
    for (const std::string& part : parts) stem += "-" + file_part(part);
    std::string name = stem + ".svg";
    for (int i = 2; !names_.insert(name).second; ++i) name = stem + "-" + std::to_string(i) + ".svg";
    plots_.push_back({name, std::move(svg)});
  }

  std::vector<Plot> take() { return std::move(plots_); }

 private:
  std::set<std::string> models_;
  std::set<std::string> names_;
  std::vector<Plot> plots_;
};

using Place = std::tuple<int64_t, double>;  // length and depth

// One point a plan: over the places that every plan has, so that all are judged by the same; empty when there are none, or one plan.
std::vector<CostPoint> cost_points(const std::vector<ResultLine>& cells) {
  std::vector<std::vector<ResultLine>> plans = grouped_by(cells, [](const ResultLine& l) { return l.plan; });
  std::map<Place, std::set<std::string>> seen;
  const auto place = [](const ResultLine& l) { return Place(l.length, l.depth.value_or(-1)); };
  for (const ResultLine& l : cells) seen[place(l)].insert(l.plan);
  std::vector<CostPoint> points;
  for (const std::vector<ResultLine>& plan : plans) {
    CostPoint point{plan.front().plan};
    double count = 0;
    for (const ResultLine& l : plan) {
      if (seen[place(l)].size() < plans.size()) continue;
      point.cost += l.seconds;
      point.value += l.figure.value;
      count += 1;
    }
    if (count == 0) return {};
    point.cost /= count;
    point.value /= count;
    points.push_back(point);
  }
  return points.size() < 2 ? std::vector<CostPoint>() : points;
}

void add_cells(const ResultLines& lines, Plots& plots) {
  const auto key = [](const ResultLine& l) { return std::tuple(l.task, l.text, l.model, l.figure.name); };
  for (const std::vector<ResultLine>& group : grouped_by(lines.cells, key)) {
    const ResultLine& first = group.front();
    if (first.figure.is_share) plots.add("heat", {first.task, first.text}, first.model, draw_heat(group));
    const std::vector<CostPoint> points = cost_points(group);
    if (points.empty()) continue;
    plots.add("cost", {first.task, first.text}, first.model,
              draw_cost(points, {"Cost and quality: " + first.task + " in " + first.text,
                                 first.model + ", means over the cells that every plan has", "seconds a cell",
                                 first.figure.name + (first.figure.is_share ? ", higher is better" : ", lower is better")}));
  }
}

void add_masses(const ResultLines& lines, Plots& plots) {
  const auto key = [](const MassRecord& m) { return std::tuple(m.text, m.model, m.length); };
  for (const std::vector<MassRecord>& group : grouped_by(lines.masses, key)) {
    const MassRecord& first = group.front();
    const std::vector<std::string> parts = {first.text, std::to_string(first.length)};
    plots.add("recall", parts, first.model, draw_recall(group));
    std::vector<CostPoint> points;
    for (const MassRecord& m : group) {
      const MassReport& r = m.report;
      points.push_back({m.plan, r.keys_searched + r.keys_attended, 1 - r.all.outside * (1 - r.all.kept)});
    }
    if (points.size() < 2) continue;
    plots.add(
        "cost-mass", parts, first.model,
        draw_cost(points, {"Cost and quality: attention in " + first.text, first.model + ", " + std::to_string(first.length) + " tokens",
                           "keys searched and attended to, a row and KV head", "attention in the context, layers that select"}));
  }
}

}  // namespace

std::vector<Plot> draw_results(const ResultLines& lines) {
  Plots plots(lines);
  add_cells(lines, plots);
  add_masses(lines, plots);
  return plots.take();
}

}  // namespace bough::eval
