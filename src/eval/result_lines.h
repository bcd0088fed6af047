// Files of results, JSON lines as docs/quality.md has them, as far as drawings need them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/mass_report.h"

namespace bough::eval {

// What a task measured, one number: the first of a line's figures relative_error, score, exact, cross_entropy.
struct Figure {
  std::string name;
  double value = 0;
  bool is_share = false;  // 0..1 and best at 1; otherwise best at 0
};

struct ResultLine {
  std::string task;
  std::string plan;
  std::string text;
  std::string model;
  int64_t length = 0;
  std::optional<double> depth;  // 0..1; none: the whole text
  double seconds = 0;
  Figure figure;
};

struct ResultLines {
  std::vector<ResultLine> cells;
  std::vector<MassRecord> masses;  // of the task mass

  bool empty() const { return cells.empty() && masses.empty(); }
};

// Adds the lines of one file, `name` in errors; empty lines are passed over. Errors: corrupt, with the file, the line's number and the
// reason; what came before the line has been added.
Status add_result_lines(std::string_view content, const std::string& name, ResultLines& lines);

// A short word for each plan: a preset's name as it is, "plan 2" for the second where that is given as JSON.
std::vector<std::string> plan_words(const std::vector<std::string>& plans);

}  // namespace bough::eval
