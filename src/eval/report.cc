#include "eval/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

namespace bough::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* row_format = "%-22s %-16s %-12s %8s %5s %6s %5s %5s %7s %13s %8s %10s %10s %9s\n";

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> optional_number(const Json& json, const char* name) {
  const Json& value = json.at(name);
  if (value.is_null()) return std::nullopt;
  return value.get<double>();
}

// "trials 10, not 20"
template <typename Value>
std::string other(const char* what, const Value& held, const Value& asked) {
  if constexpr (std::is_arithmetic_v<Value>) {
    return other(what, std::to_string(held), std::to_string(asked));
  } else {
    return std::string(what) + " " + held + ", not " + asked;
  }
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string number(const std::optional<double>& value, int digits) { return value ? fixed(*value, digits) : "-"; }

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

bool same_place(const Cell& a, const Cell& b) { return a.task == b.task && a.text == b.text && a.length == b.length && a.depth == b.depth; }

// The figure that a comparison of plans shows, with its name.
std::pair<std::string, std::string> headline(const Cell& cell) {
  if (cell.relative_error) return {"error", fixed(*cell.relative_error, 4)};
  if (cell.score) return {"score", fixed(*cell.score, 2)};
  if (cell.cross_entropy) return {"perplexity", fixed(std::exp(*cell.cross_entropy), 3)};
  return {"-", "-"};
}

std::string aligned(const std::vector<std::string>& place, const std::vector<std::string>& figures) {
  char line[128];
  std::snprintf(line, sizeof line, "%-22s %-12s %8s %5s %-10s", shortened(place[0], 22).c_str(), shortened(place[1], 12).c_str(),
                place[2].c_str(), place[3].c_str(), place[4].c_str());
  std::string text = line;
  for (const std::string& figure : figures) {
    const std::string shown = shortened(figure, 16);
    text += " " + std::string(16 - shown.size(), ' ') + shown;
  }
  return text + "\n";
}

}  // namespace

std::optional<double> band_depth(int band, int depths) {
  if (depths <= 1) return std::nullopt;
  return (band + 0.5) / depths;
}

std::string cell_key(const Cell& cell) {
  return Json::array({cell.task, cell.plan, cell.text, cell.length, number_or_null(cell.depth)})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string settings_conflict(const Cell& held, const Cell& asked) {
  if (held.model != asked.model) return other("model", held.model, asked.model);
  if (held.kv != asked.kv) return other("KV type", held.kv, asked.kv);
  if (held.task == asked.task && held.seed != asked.seed) return asked.task + " with " + other("seed", held.seed, asked.seed);
  if (held.text == asked.text && held.text_checksum != asked.text_checksum) return "another text of the name '" + asked.text + "'";
  if (held.task != asked.task || held.text != asked.text || held.length != asked.length) return {};
  const std::string place = asked.task + " at " + std::to_string(asked.length) + " tokens with ";
  if (asked.trials != 0 && held.trials != asked.trials) return place + other("trials", held.trials, asked.trials);
  if (held.depths != asked.depths) return place + other("depths", held.depths, asked.depths);
  if (held.rows != asked.rows) return place + other("rows", held.rows, asked.rows);
  if (held.one_haystack != asked.one_haystack) return place + (held.one_haystack ? "one haystack" : "many haystacks");
  if (held.chat != asked.chat) return place + (held.chat ? "the chat template" : "no chat template");
  return {};
}

std::string cell_json(const Cell& cell) {
  const Json json = {{"task", cell.task},
                     {"plan", cell.plan},
                     {"text", cell.text},
                     {"length", cell.length},
                     {"depth", number_or_null(cell.depth)},
                     {"trials", cell.trials},
                     {"exact", number_or_null(cell.exact)},
                     {"score", number_or_null(cell.score)},
                     {"cross_entropy", number_or_null(cell.cross_entropy)},
                     {"sources", number_or_null(cell.sources)},
                     {"relative_error", number_or_null(cell.relative_error)},
                     {"divergence", number_or_null(cell.divergence)},
                     {"tokens", cell.tokens},
                     {"seconds", cell.seconds},
                     {"model", cell.model},
                     {"kv", cell.kv},
                     {"seed", cell.seed},
                     {"depths", cell.depths},
                     {"one_haystack", cell.one_haystack},
                     {"chat", cell.chat},
                     {"rows", cell.rows},
                     {"text_checksum", cell.text_checksum}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Cell> parse_cell(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    Cell cell;
    json.at("task").get_to(cell.task);
    json.at("plan").get_to(cell.plan);
    json.at("text").get_to(cell.text);
    json.at("length").get_to(cell.length);
    cell.depth = optional_number(json, "depth");
    json.at("trials").get_to(cell.trials);
    cell.exact = optional_number(json, "exact");
    cell.score = optional_number(json, "score");
    cell.cross_entropy = optional_number(json, "cross_entropy");
    cell.sources = optional_number(json, "sources");
    cell.relative_error = optional_number(json, "relative_error");
    cell.divergence = optional_number(json, "divergence");
    json.at("tokens").get_to(cell.tokens);
    json.at("seconds").get_to(cell.seconds);
    json.at("model").get_to(cell.model);
    json.at("kv").get_to(cell.kv);
    json.at("seed").get_to(cell.seed);
    json.at("depths").get_to(cell.depths);
    json.at("one_haystack").get_to(cell.one_haystack);
    json.at("chat").get_to(cell.chat);
    json.at("rows").get_to(cell.rows);
    json.at("text_checksum").get_to(cell.text_checksum);
    return cell;
  } catch (const std::exception& error) {
    return Status(Code::corrupt, std::string("not a result line: ") + error.what());
  }
}

std::string cell_table_header() {
  return formatted_row(std::string("task"), std::string("plan"), std::string("text"), std::string("length"), std::string("depth"),
                       std::string("trials"), std::string("exact"), std::string("score"), std::string("sources"),
                       std::string("cross_entropy"), std::string("error"), std::string("divergence"), std::string("tokens"),
                       std::string("seconds"));
}

std::string cell_table_row(const Cell& cell) {
  return formatted_row(shortened(cell.task, 22), shortened(cell.plan, 16), shortened(cell.text, 12), std::to_string(cell.length),
                       number(cell.depth, 3), std::to_string(cell.trials), number(cell.exact, 2), number(cell.score, 2),
                       number(cell.sources, 2), number(cell.cross_entropy, 4), number(cell.relative_error, 4), number(cell.divergence, 4),
                       std::to_string(cell.tokens), fixed(cell.seconds, 1));
}

std::string comparison_table(std::span<const Cell> cells) {
  std::vector<std::string> plans;
  std::vector<const Cell*> rows;  // the first cell of each
  for (const Cell& cell : cells) {
    if (std::find(plans.begin(), plans.end(), cell.plan) == plans.end()) plans.push_back(cell.plan);
    if (std::none_of(rows.begin(), rows.end(), [&](const Cell* row) { return same_place(*row, cell); })) rows.push_back(&cell);
  }
  std::string table = aligned({"task", "text", "length", "depth", "figure"}, plans);
  for (const Cell* row : rows) {
    std::vector<std::string> figures;
    for (const std::string& plan : plans) {
      const auto found = std::find_if(cells.begin(), cells.end(), [&](const Cell& c) { return c.plan == plan && same_place(c, *row); });
      figures.push_back(found == cells.end() ? "-" : headline(*found).second);
    }
    table += aligned({row->task, row->text, std::to_string(row->length), number(row->depth, 3), headline(*row).first}, figures);
  }
  return table;
}

}  // namespace bough::eval
