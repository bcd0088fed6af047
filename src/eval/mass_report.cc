#include "eval/mass_report.h"

#include <cstdio>
#include <exception>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

namespace bough::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kShortName = 16;  // bytes

struct Share {
  const char* name;
  double MassShares::*value;
};
constexpr Share shares[] = {
    {"outside", &MassShares::outside},      {"kept", &MassShares::kept},         {"best", &MassShares::best},
    {"random", &MassShares::random},        {"top_kept", &MassShares::top_kept}, {"top_best", &MassShares::top_best},
    {"top_random", &MassShares::top_random}};

Json shares_json(const char* name, int index, const MassShares& m) {
  Json json = Json::object();
  if (name != nullptr) json[name] = index;
  for (const Share& share : shares) json[share.name] = m.*share.value;
  json["stages"] = m.stages;
  return json;
}

MassShares parse_shares(const Json& json) {
  MassShares m;
  for (const Share& share : shares) m.*share.value = json.at(share.name).get<double>();
  m.stages = json.at("stages").get<std::vector<double>>();
  return m;
}

template <typename... Text>
void add_row(std::string& out, const Text&... text) {
  char line[160];
  std::snprintf(line, sizeof line, "%-6s%-6s%-16s %8s %8s %8s %8s %9s %9s %11s", text...);
  out += line;
}

void add_shares(std::string& out, const std::string& layer, const std::string& head, const std::string& plan, const MassShares& m) {
  char value[std::size(shares)][16];
  for (size_t i = 0; i < std::size(shares); ++i) std::snprintf(value[i], sizeof value[i], "%.4f", m.*shares[i].value);
  add_row(out, layer.c_str(), head.c_str(), plan.c_str(), value[0], value[1], value[2], value[3], value[4], value[5], value[6]);
  for (const double stage : m.stages) {
    char text[16];
    std::snprintf(text, sizeof text, "  %.4f", stage);
    out += text;
  }
  out += '\n';
}

const LayerMass* layer_of(const MassRecord& record, int layer) {
  for (const LayerMass& m : record.report.layers) {
    if (m.layer == layer) return &m;
  }
  return nullptr;
}

}  // namespace

std::string mass_json(const MassRecord& record) {
  const MassReport& r = record.report;
  Json layers = Json::array();
  for (const LayerMass& m : r.layers) {
    Json layer = shares_json("layer", m.layer, m.all);
    Json& heads = layer["heads"] = Json::array();
    for (size_t h = 0; h < m.heads.size(); ++h) heads.push_back(shares_json("head", static_cast<int>(h), m.heads[h]));
    layers.push_back(std::move(layer));
  }
  const Json json = {{"task", "mass"},
                     {"plan", record.plan},
                     {"length", record.length},
                     {"text", record.text},
                     {"model", record.model},
                     {"blocks", r.blocks},
                     {"true_positions", r.true_positions},
                     {"keys_searched", r.keys_searched},
                     {"keys_attended", r.keys_attended},
                     {"seconds", r.seconds},
                     {"all", shares_json(nullptr, 0, r.all)},
                     {"layers", layers}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<MassRecord> parse_mass(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    if (json.at("task").get<std::string>() != "mass") return Status(Code::corrupt, "not a result of the task mass");
    MassRecord record;
    record.plan = json.at("plan").get<std::string>();
    record.length = json.at("length").get<int64_t>();
    record.text = json.at("text").get<std::string>();
    record.model = json.at("model").get<std::string>();
    record.report.blocks = json.at("blocks").get<int64_t>();
    record.report.true_positions = json.at("true_positions").get<bool>();
    record.report.keys_searched = json.at("keys_searched").get<double>();
    record.report.keys_attended = json.at("keys_attended").get<double>();
    record.report.seconds = json.at("seconds").get<double>();
    record.report.all = parse_shares(json.at("all"));
    for (const Json& layer : json.at("layers")) {
      LayerMass m{layer.at("layer").get<int>(), parse_shares(layer), {}};
      for (const Json& head : layer.at("heads")) m.heads.push_back(parse_shares(head));
      record.report.layers.push_back(std::move(m));
    }
    return record;
  } catch (const std::exception& error) {
    return Status(Code::corrupt, std::string("not a result of the task mass: ") + error.what());
  }
}

std::string mass_table(std::span<const MassRecord> records, bool heads) {
  std::string out;
  std::vector<std::string> names;
  std::set<int> layers;
  size_t most_heads = 0;
  for (const MassRecord& r : records) {
    names.push_back(r.plan);
    if (r.plan.size() > kShortName) {
      names.back() = "plan " + std::to_string(names.size());
      out += names.back() + " is " + r.plan + "\n";
    }
    for (const LayerMass& m : r.report.layers) {
      layers.insert(m.layer);
      most_heads = std::max(most_heads, m.heads.size());
    }
  }
  add_row(out, "layer", "head", "plan", "outside", "kept", "best", "random", "top kept", "top best", "top random");
  out += "  after each stage\n";
  for (const int layer : layers) {
    for (size_t head = 0; heads && head < most_heads; ++head) {
      for (size_t i = 0; i < records.size(); ++i) {
        const LayerMass* m = layer_of(records[i], layer);
        if (m != nullptr && head < m->heads.size()) {
          add_shares(out, std::to_string(layer), std::to_string(head), names[i], m->heads[head]);
        }
      }
    }
    for (size_t i = 0; i < records.size(); ++i) {
      if (const LayerMass* m = layer_of(records[i], layer)) add_shares(out, std::to_string(layer), "all", names[i], m->all);
    }
  }
  for (size_t i = 0; i < records.size(); ++i) add_shares(out, "all", "all", names[i], records[i].report.all);
  return out;
}

}  // namespace bough::eval
