#include "eval/report.h"

#include <cstdio>
#include <exception>

#include <nlohmann/json.hpp>

namespace bough::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* row_format = "%-8s %-24s %9s %-16s %6s %6s %6s %7s %13s %10s %9s\n";

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> optional_number(const Json& json, const char* name) {
  const Json& value = json.at(name);
  if (value.is_null()) return std::nullopt;
  return value.get<double>();
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string share(const std::optional<double>& value) { return value ? fixed(*value, 2) : "-"; }

// The last `most` bytes of a name that is longer than that, never cutting a UTF-8 character.
std::string shortened(const std::string& name, size_t most) {
  if (name.size() <= most) return name;
  size_t from = name.size() - (most - 2);
  while (from < name.size() && (static_cast<unsigned char>(name[from]) & 0xC0) == 0x80) ++from;
  return ".." + name.substr(from);
}

template <typename... Text>
std::string formatted_row(const Text&... text) {
  char line[256];
  std::snprintf(line, sizeof line, row_format, text.c_str()...);
  return line;
}

}  // namespace

std::string cell_key(const Cell& cell) {
  return Json::array({cell.task, cell.plan, cell.length, cell.text, cell.trials, cell.model, cell.kv, cell.seed, cell.one_haystack})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string cell_json(const Cell& cell) {
  const Json json = {{"task", cell.task},
                     {"plan", cell.plan},
                     {"length", cell.length},
                     {"text", cell.text},
                     {"trials", cell.trials},
                     {"exact", number_or_null(cell.exact)},
                     {"digits", number_or_null(cell.digits)},
                     {"sources", number_or_null(cell.sources)},
                     {"cross_entropy", cell.cross_entropy},
                     {"tokens", cell.tokens},
                     {"seconds", cell.seconds},
                     {"model", cell.model},
                     {"kv", cell.kv},
                     {"seed", cell.seed},
                     {"one_haystack", cell.one_haystack}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Cell> parse_cell(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    Cell cell;
    cell.task = json.at("task").get<std::string>();
    cell.plan = json.at("plan").get<std::string>();
    cell.length = json.at("length").get<int64_t>();
    cell.text = json.at("text").get<std::string>();
    cell.trials = json.at("trials").get<int>();
    cell.exact = optional_number(json, "exact");
    cell.digits = optional_number(json, "digits");
    cell.sources = optional_number(json, "sources");
    cell.cross_entropy = json.at("cross_entropy").get<double>();
    cell.tokens = json.at("tokens").get<int64_t>();
    cell.seconds = json.at("seconds").get<double>();
    cell.model = json.at("model").get<std::string>();
    cell.kv = json.at("kv").get<std::string>();
    cell.seed = json.at("seed").get<uint64_t>();
    cell.one_haystack = json.at("one_haystack").get<bool>();
    return cell;
  } catch (const std::exception& error) {
    return Status(Code::corrupt, std::string("not a result line: ") + error.what());
  }
}

std::string cell_table_header() {
  return formatted_row(std::string("task"), std::string("plan"), std::string("length"), std::string("text"), std::string("trials"),
                       std::string("exact"), std::string("digits"), std::string("sources"), std::string("cross_entropy"),
                       std::string("tokens"), std::string("seconds"));
}

std::string cell_table_row(const Cell& cell) {
  return formatted_row(cell.task, shortened(cell.plan, 24), std::to_string(cell.length), shortened(cell.text, 16),
                       std::to_string(cell.trials), share(cell.exact), share(cell.digits), share(cell.sources),
                       fixed(cell.cross_entropy, 4), std::to_string(cell.tokens), fixed(cell.seconds, 1));
}

}  // namespace bough::eval
