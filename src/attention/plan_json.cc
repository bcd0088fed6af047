// AttentionPlan as JSON: a strict reader (every key known, once, of the right type and in range) and the one-line writer.
#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "attention/plan_parts.h"
#include "base/check.h"
#include "bough/attention.h"

namespace bough {
namespace {

using nlohmann::json;

constexpr size_t kMaxBytes = 64 * 1024;
constexpr size_t kMaxNesting = 16;

Status invalid(std::string message) { return {Code::invalid_argument, std::move(message)}; }

// Text of unknown origin, quoted, escaped to printable ASCII and shortened, for a message.
std::string quote(std::string_view text) {
  constexpr size_t longest = 60;
  const std::string shown(text.substr(0, longest));
  return json(shown).dump(-1, ' ', true, json::error_handler_t::replace) + (text.size() > longest ? "..." : "");
}

std::string text_of(const json& value) {
  if (value.is_string()) return quote(value.get_ref<const std::string&>());
  if (value.is_structured()) return std::string("an ") + value.type_name();
  return value.dump();
}

template <typename T>
Status read_integer(const json& value, const std::string& field, int64_t low, int64_t high, T* out) {
  const std::string must = ", must be an integer from " + std::to_string(low) + " to " + std::to_string(high);
  if (!value.is_number_integer()) return invalid(field + " is " + text_of(value) + must);
  const bool beyond = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (beyond || value.get<int64_t>() < low || value.get<int64_t>() > high) return invalid(field + " is " + value.dump() + must);
  *out = static_cast<T>(value.get<int64_t>());
  return {};
}

template <typename T>
Status read_name(const json& value, const std::string& field, std::span<const std::string_view> names, T* out) {
  if (value.is_string()) {
    for (size_t i = 0; i < names.size(); ++i) {
      if (value.get_ref<const std::string&>() == names[i]) {
        *out = static_cast<T>(i);
        return {};
      }
    }
  }
  return invalid(field + " is " + text_of(value) + ", must be one of the strings " + plan::join(names));
}

Status check_type(const json& value, json::value_t type, const std::string& field) {
  if (value.type() == type) return {};
  return invalid(field + " is " + text_of(value) + ", must be an " + json(type).type_name());
}

// One key of an object T: its name and what reads its value. `path` names the value in messages.
template <typename T>
struct Field {
  std::string_view name;
  Status (*read)(const json& value, const std::string& path, T& out);
};

template <typename T, size_t n>
Status read_fields(const json& object, const std::array<Field<T>, n>& fields, const std::string& prefix, T& out) {
  for (const auto& [key, value] : object.items()) {
    const Field<T>* field = nullptr;
    for (const Field<T>& known : fields) {
      if (known.name == key) field = &known;
    }
    if (field == nullptr) {
      std::vector<std::string_view> names;
      names.reserve(n);
      for (const Field<T>& known : fields) names.push_back(known.name);
      const std::string where = prefix.empty() ? "the attention plan" : prefix.substr(0, prefix.size() - 1);
      return invalid("unknown key " + quote(key) + " in " + where + ", known are " + plan::join(names));
    }
    BOUGH_RETURN_IF_ERROR(field->read(value, prefix + key, out));
  }
  return {};
}

Status read_stage(const json& value, const std::string& path, bool is_first, StagePlan& stage) {
  static constexpr std::array<Field<StagePlan>, 4> fields = {{
      {"chunk", [](const json& v, const std::string& at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxChunk, &s.chunk); }},
      {"keep", [](const json& v, const std::string& at, StagePlan& s) { return read_integer(v, at, 0, plan::kMaxTokens, &s.keep); }},
      {"query_block",
       [](const json& v, const std::string& at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &s.query_block); }},
      {"query_stride",
       [](const json& v, const std::string& at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &s.query_stride); }},
  }};
  BOUGH_RETURN_IF_ERROR(check_type(value, json::value_t::object, path));
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", stage));
  if (!value.contains("chunk")) return invalid(path + ".chunk is missing");
  if (!is_first && !value.contains("keep")) return invalid(path + ".keep is missing");
  return {};
}

Status read_stages(const json& value, const std::string& path, AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_type(value, json::value_t::array, path));
  if (value.size() > plan::kMaxStages) {
    return invalid(path + " has " + std::to_string(value.size()) + " entries, must have at most " + std::to_string(plan::kMaxStages));
  }
  p.stages.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    StagePlan stage;
    BOUGH_RETURN_IF_ERROR(read_stage(value[i], path + "[" + std::to_string(i) + "]", i == 0, stage));
    p.stages.push_back(stage);
  }
  return {};
}

Status read_first(const json& value, const std::string& path, AttentionPlan& p) {
  static constexpr std::array<Field<FirstLayers>, 3> fields = {{
      {"layers", [](const json& v, const std::string& at, FirstLayers& f) { return read_integer(v, at, 0, plan::kMaxLayers, &f.layers); }},
      {"k", [](const json& v, const std::string& at, FirstLayers& f) { return read_integer(v, at, 0, plan::kMaxTokens, &f.k); }},
      {"scan", [](const json& v, const std::string& at, FirstLayers& f) { return read_name(v, at, plan::scan_names(), &f.scan); }},
  }};
  if (value.is_null()) {
    p.first.reset();
    return {};
  }
  BOUGH_RETURN_IF_ERROR(check_type(value, json::value_t::object, path));
  FirstLayers first = *plan::base_of(Mode::stages).first;
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", first));
  p.first = first;
  return {};
}

Status read_refresh(const json& value, const std::string& path, AttentionPlan& p) {
  BOUGH_RETURN_IF_ERROR(check_type(value, json::value_t::array, path));
  if (value.size() > plan::kMaxStages) {
    return invalid(path + " has " + std::to_string(value.size()) + " entries, must have at most " + std::to_string(plan::kMaxStages));
  }
  p.refresh.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    int interval = 0;
    BOUGH_RETURN_IF_ERROR(read_integer(value[i], path + "[" + std::to_string(i) + "]", 1, plan::kMaxInterval, &interval));
    p.refresh.push_back(interval);
  }
  return {};
}

using Plan = AttentionPlan;
using Path = const std::string&;

constexpr std::array<Field<Plan>, 12> plan_fields = {{
    {"mode", [](const json& v, Path at, Plan& p) { return read_name(v, at, plan::mode_names(), &p.mode); }},
    {"sinks", [](const json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.sinks); }},
    {"window", [](const json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.window); }},
    {"stages", read_stages},
    {"k", [](const json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.k); }},
    {"first", read_first},
    {"scan", [](const json& v, Path at, Plan& p) { return read_name(v, at, plan::scan_names(), &p.scan); }},
    {"lists", [](const json& v, Path at, Plan& p) { return read_name(v, at, plan::lists_names(), &p.lists); }},
    {"pool", [](const json& v, Path at, Plan& p) { return read_name(v, at, plan::pool_names(), &p.pool); }},
    {"refresh", read_refresh},
    {"tail", [](const json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTail, &p.tail); }},
    {"dense_below", [](const json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.dense_below); }},
}};

// Watches the parser for what the library would accept: deep nesting and a key that appears twice in one object.
class Watch {
 public:
  bool operator()(json::parse_event_t event, const json& parsed) {
    using Event = json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      open_.emplace_back();
      if (open_.size() > kMaxNesting && error_.empty()) error_ = "the attention plan nests deeper than " + std::to_string(kMaxNesting);
    } else if (event == Event::object_end || event == Event::array_end) {
      open_.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && error_.empty()) error_ = "the key " + quote(key) + " appears twice in one object";
    }
    return true;
  }
  const std::string& error() const { return error_; }

 private:
  std::vector<std::set<std::string>> open_;  // keys seen so far of each open object or array
  std::string error_;
};

Status parse_strict(std::string_view text, json& out) {
  Watch watch;
  try {
    out = json::parse(text, [&watch](int, json::parse_event_t event, json& parsed) { return watch(event, parsed); });
  } catch (const json::parse_error& error) {
    if (!watch.error().empty()) return invalid(watch.error());
    return invalid("the attention plan is not valid JSON at byte " + std::to_string(error.byte));
  }
  if (!watch.error().empty()) return invalid(watch.error());
  return {};
}

Result<AttentionPlan> plan_of(const json& object) {
  BOUGH_RETURN_IF_ERROR(check_type(object, json::value_t::object, "the attention plan"));
  AttentionPlan p = plan::base_of(Mode::stages);
  if (auto mode = object.find("mode"); mode != object.end()) {
    if (*mode == "hip") return Status(Code::unsupported, "mode \"hip\" is not implemented, use one of " + plan::join(plan::mode_names()));
    BOUGH_RETURN_IF_ERROR(read_name(*mode, "mode", plan::mode_names(), &p.mode));
    p = plan::base_of(p.mode);
  }
  BOUGH_RETURN_IF_ERROR(read_fields(object, plan_fields, "", p));
  BOUGH_RETURN_IF_ERROR(validate_plan(p));
  return p;
}

Result<AttentionPlan> parse_text(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return invalid("the attention plan has more than " + std::to_string(kMaxBytes) + " bytes, the most that is read");
  }
  try {
    json object;
    BOUGH_RETURN_IF_ERROR(parse_strict(text, object));
    return plan_of(object);
  } catch (const json::exception&) {
    return invalid("the attention plan holds a number outside the range of JSON numbers");
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "out of memory while reading the attention plan");
  }
}

Status unknown_plan(std::string_view spec) {
  std::string names;
  for (const std::string& name : preset_names()) names += (names.empty() ? "" : ", ") + name;
  return {Code::not_found, "there is no attention plan or file " + quote(spec) + ", the presets are " + names};
}

Result<AttentionPlan> parse_file(const std::string& path) {
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  if (type == std::filesystem::file_type::not_found || type == std::filesystem::file_type::none) return unknown_plan(path);
  if (type != std::filesystem::file_type::regular) return invalid("the attention plan " + quote(path) + " is not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status(Code::io_error, "cannot open the attention plan " + quote(path));
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return Status(Code::io_error, "cannot read the attention plan " + quote(path));
  text.resize(static_cast<size_t>(file.gcount()));
  Result<AttentionPlan> result = parse_text(text);
  if (!result.ok()) return Status(result.status().code(), quote(path) + ": " + result.status().message());
  return result;
}

template <typename T>
std::string_view name(std::span<const std::string_view> names, T value) {
  return names[static_cast<size_t>(value)];
}

}  // namespace

Result<AttentionPlan> parse_plan(std::string_view spec) {
  if (auto preset = plan::find_preset(spec)) return *preset;
  if (spec == "hip") return Status(Code::unsupported, "the preset hip is not implemented, use another");
  if (spec.starts_with('{')) return parse_text(spec);
  if (spec.empty() || spec.find('\0') != std::string_view::npos) return unknown_plan(spec);
  try {
    return parse_file(std::string(spec));
  } catch (const std::exception&) {
    return Status(Code::io_error, "cannot read the attention plan " + quote(spec));
  }
}

std::string plan_json(const AttentionPlan& p) {
  using nlohmann::ordered_json;
  ordered_json stages = ordered_json::array();
  for (size_t i = 0; i < p.stages.size(); ++i) {
    ordered_json stage;
    stage["chunk"] = p.stages[i].chunk;
    if (i > 0) stage["keep"] = p.stages[i].keep;
    stage["query_block"] = p.stages[i].query_block;
    stage["query_stride"] = p.stages[i].query_stride;
    stages.push_back(std::move(stage));
  }
  ordered_json first;
  if (p.first) first = {{"layers", p.first->layers}, {"k", p.first->k}, {"scan", name(plan::scan_names(), p.first->scan)}};
  const ordered_json object = {{"mode", name(plan::mode_names(), p.mode)},
                               {"sinks", p.sinks},
                               {"window", p.window},
                               {"stages", std::move(stages)},
                               {"k", p.k},
                               {"first", std::move(first)},
                               {"scan", name(plan::scan_names(), p.scan)},
                               {"lists", name(plan::lists_names(), p.lists)},
                               {"pool", name(plan::pool_names(), p.pool)},
                               {"refresh", p.refresh},
                               {"tail", p.tail},
                               {"dense_below", p.dense_below}};
  return object.dump();
}

}  // namespace bough
