#include "eval/result_lines.h"

#include <cmath>
#include <exception>

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace bough::eval {
namespace {

using Json = nlohmann::json;

constexpr size_t kShortWord = 16;  // bytes

struct KnownFigure {
  const char* field;
  const char* name;
  bool is_share;
};
constexpr KnownFigure figures[] = {{"relative_error", "relative error", false},
                                   {"score", "score", true},
                                   {"exact", "exact", true},
                                   {"cross_entropy", "cross-entropy", false}};

Result<Figure> figure_of(const Json& json) {
  for (const KnownFigure& known : figures) {
    const auto found = json.find(known.field);
    if (found == json.end() || found->is_null()) continue;
    const double value = found->get<double>();
    if (known.is_share && !(value >= 0 && value <= 1)) {
      return Status(Code::corrupt, std::string(known.field) + " is " + found->dump() + ", it must be 0 to 1");
    }
    return Figure{known.name, value, known.is_share};
  }
  return Status(Code::corrupt, "it has none of the figures relative_error, score, exact and cross_entropy");
}

Result<ResultLine> cell_of(const Json& json) {
  ResultLine line;
  line.task = json.at("task").get<std::string>();
  line.plan = json.at("plan").get<std::string>();
  line.text = json.at("text").get<std::string>();
  line.model = json.at("model").get<std::string>();
  line.length = json.at("length").get<int64_t>();
  line.seconds = json.at("seconds").get<double>();
  if (const auto depth = json.find("depth"); depth != json.end() && !depth->is_null()) {
    line.depth = depth->get<double>();
    if (!(*line.depth >= 0 && *line.depth <= 1)) return Status(Code::corrupt, "depth is " + depth->dump() + ", it must be 0 to 1");
  }
  if (line.length < 1) return Status(Code::corrupt, "length is " + std::to_string(line.length) + ", it must be at least 1");
  BOUGH_ASSIGN_OR_RETURN(line.figure, figure_of(json));
  return line;
}

// The library's sentence without its own number in brackets before it.
std::string reason(const std::exception& error) {
  const std::string what = error.what();
  const size_t end = what.find("] ");
  return end == std::string::npos ? what : what.substr(end + 2);
}

Status add_line(std::string_view text, ResultLines& lines) {
  try {
    const Json json = Json::parse(text);
    if (!json.is_object()) return Status(Code::corrupt, "it is no JSON object");
    if (json.at("task") == "mass") {
      BOUGH_ASSIGN_OR_RETURN(MassRecord record, parse_mass(text));
      lines.masses.push_back(std::move(record));
    } else {
      BOUGH_ASSIGN_OR_RETURN(ResultLine line, cell_of(json));
      lines.cells.push_back(std::move(line));
    }
    return {};
  } catch (const std::exception& error) {
    return Status(Code::corrupt, reason(error));
  }
}

}  // namespace

Status add_result_lines(std::string_view content, const std::string& name, ResultLines& lines) {
  int64_t number = 0;
  while (!content.empty()) {
    const size_t end = std::min(content.find('\n'), content.size());
    const std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (const Status status = add_line(line, lines); !status.ok()) {
      return Status(Code::corrupt, "'" + name + "', line " + std::to_string(number) + " is no result: " + status.message());
    }
  }
  return {};
}

std::vector<std::string> plan_words(const std::vector<std::string>& plans) {
  std::vector<std::string> words = plans;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].size() > kShortWord) words[i] = "plan " + std::to_string(i + 1);
  }
  return words;
}

}  // namespace bough::eval
