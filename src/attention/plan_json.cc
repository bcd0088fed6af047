// AttentionPlan as JSON: a strict reader (every key known, once, of the right type and in range) and the one-line writer.
#include <array>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attention/authors_json.h"
#include "attention/json_read.h"
#include "attention/plan_parts.h"
#include "base/check.h"
#include "bough/attention.h"

namespace bough {
namespace {

using plan::check_type;
using plan::Field;
using plan::invalid;
using plan::Json;
using plan::quote;
using plan::read_fields;
using plan::read_integer;
using plan::read_name;

using Path = const std::string&;

Status read_stage(const Json& value, Path path, bool is_first, StagePlan& stage) {
  static constexpr std::array<Field<StagePlan>, 8> fields = {{
      {"chunk", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxChunk, &s.chunk); }},
      {"keep", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 0, plan::kMaxTokens, &s.keep); }},
      {"query_block", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &s.query_block); }},
      {"query_stride", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &s.query_stride); }},
      {"rounds",
       [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 0, std::bit_width(unsigned{plan::kMaxChunk}), &s.rounds); }},
      {"piece", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 0, plan::kMaxChunk, &s.piece); }},
      {"row_piece", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 0, plan::kMaxChunk, &s.row_piece); }},
      {"row_keep", [](const Json& v, Path at, StagePlan& s) { return read_integer(v, at, 0, plan::kMaxTokens, &s.row_keep); }},
  }};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::object, path));
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", stage));
  if (!value.contains("chunk")) return invalid(path + ".chunk is missing");
  if (!is_first && !value.contains("keep")) return invalid(path + ".keep is missing");
  return {};
}

Status read_stages(const Json& value, Path path, std::vector<StagePlan>& stages) {
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::array, path));
  if (value.size() > plan::kMaxStages) {
    return invalid(path + " has " + std::to_string(value.size()) + " entries, must have at most " + std::to_string(plan::kMaxStages));
  }
  stages.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    StagePlan stage;
    BOUGH_RETURN_IF_ERROR(read_stage(value[i], path + "[" + std::to_string(i) + "]", i == 0, stage));
    stages.push_back(stage);
  }
  return {};
}

Status read_tree(const Json& value, Path path, std::optional<TreePlan>& out) {
  static constexpr std::array<Field<TreePlan>, 7> fields = {{
      {"k", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 0, plan::kMaxTokens, &t.k); }},
      {"query_block", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &t.query_block); }},
      {"query_stride", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 1, plan::kMaxQueryBlock, &t.query_stride); }},
      {"key_block", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 1, plan::kMaxKeyBlock, &t.key_block); }},
      {"key_stride", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 1, plan::kMaxKeyBlock, &t.key_stride); }},
      {"rep", [](const Json& v, Path at, TreePlan& t) { return read_name(v, at, plan::representative_names(), &t.rep); }},
      {"refresh", [](const Json& v, Path at, TreePlan& t) { return read_integer(v, at, 1, plan::kMaxInterval, &t.refresh); }},
  }};
  out.reset();
  if (value.is_null()) return {};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::object, path));
  TreePlan tree;
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", tree));
  out = tree;
  return {};
}

Status read_first(const Json& value, Path path, std::optional<FirstLayers>& out) {
  static constexpr std::array<Field<FirstLayers>, 3> fields = {{
      {"layers", [](const Json& v, Path at, FirstLayers& f) { return read_integer(v, at, 0, plan::kMaxLayers, &f.layers); }},
      {"k", [](const Json& v, Path at, FirstLayers& f) { return read_integer(v, at, 0, plan::kMaxTokens, &f.k); }},
      {"scan", [](const Json& v, Path at, FirstLayers& f) { return read_name(v, at, plan::scan_names(), &f.scan); }},
  }};
  out.reset();
  if (value.is_null()) return {};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::object, path));
  FirstLayers first = *plan::base_of(Mode::stages).first;
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", first));
  out = first;
  return {};
}

Status read_override(const Json& value, Path path, LayerOverride& out) {
  using Layer = LayerOverride;
  static constexpr std::array<Field<Layer>, 10> fields = {{
      {"layers",
       [](const Json& v, Path at, Layer& o) { return plan::read_integers(v, at, 0, plan::kMaxLayers - 1, plan::kMaxLayers, o.layers); }},
      {"mode", [](const Json& v, Path at, Layer& o) { return read_name(v, at, plan::mode_names(), &o.mode.emplace()); }},
      {"sinks", [](const Json& v, Path at, Layer& o) { return read_integer(v, at, 0, plan::kMaxTokens, &o.sinks.emplace()); }},
      {"window", [](const Json& v, Path at, Layer& o) { return read_integer(v, at, 0, plan::kMaxTokens, &o.window.emplace()); }},
      {"stages", [](const Json& v, Path at, Layer& o) { return read_stages(v, at, o.stages.emplace()); }},
      {"k", [](const Json& v, Path at, Layer& o) { return read_integer(v, at, 0, plan::kMaxTokens, &o.k.emplace()); }},
      {"row_k", [](const Json& v, Path at, Layer& o) { return read_integer(v, at, 0, plan::kMaxTokens, &o.row_k.emplace()); }},
      {"tree", [](const Json& v, Path at, Layer& o) { return read_tree(v, at, o.tree); }},
      {"scan", [](const Json& v, Path at, Layer& o) { return read_name(v, at, plan::scan_names(), &o.scan.emplace()); }},
      {"positions", [](const Json& v, Path at, Layer& o) { return read_name(v, at, plan::positions_names(), &o.positions.emplace()); }},
  }};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::object, path));
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", out));
  if (!value.contains("layers")) return invalid(path + ".layers is missing");
  return {};
}

Status read_overrides(const Json& value, Path path, std::vector<LayerOverride>& out) {
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::array, path));
  out.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    BOUGH_RETURN_IF_ERROR(read_override(value[i], path + "[" + std::to_string(i) + "]", out.emplace_back()));
  }
  return {};
}

using Plan = AttentionPlan;

constexpr std::array<Field<Plan>, 16> plan_fields = {{
    {"mode", [](const Json& v, Path at, Plan& p) { return read_name(v, at, plan::mode_names(), &p.mode); }},
    {"sinks", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.sinks); }},
    {"window", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.window); }},
    {"stages", [](const Json& v, Path at, Plan& p) { return read_stages(v, at, p.stages); }},
    {"k", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.k); }},
    {"row_k", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.row_k); }},
    {"tree", [](const Json& v, Path at, Plan& p) { return read_tree(v, at, p.tree); }},
    {"first", [](const Json& v, Path at, Plan& p) { return read_first(v, at, p.first); }},
    {"scan", [](const Json& v, Path at, Plan& p) { return read_name(v, at, plan::scan_names(), &p.scan); }},
    {"positions", [](const Json& v, Path at, Plan& p) { return read_name(v, at, plan::positions_names(), &p.positions); }},
    {"lists", [](const Json& v, Path at, Plan& p) { return read_name(v, at, plan::lists_names(), &p.lists); }},
    {"pool", [](const Json& v, Path at, Plan& p) { return read_name(v, at, plan::pool_names(), &p.pool); }},
    {"refresh",
     [](const Json& v, Path at, Plan& p) { return plan::read_integers(v, at, 1, plan::kMaxInterval, plan::kMaxStages, p.refresh); }},
    {"tail", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTail, &p.tail); }},
    {"dense_below", [](const Json& v, Path at, Plan& p) { return read_integer(v, at, 0, plan::kMaxTokens, &p.dense_below); }},
    {"layers", [](const Json& v, Path at, Plan& p) { return read_overrides(v, at, p.layers); }},
}};

Result<AttentionPlan> plan_of(const Json& object) {
  BOUGH_RETURN_IF_ERROR(check_type(object, Json::value_t::object, "the attention plan"));
  if (plan::is_authors_json(object)) {
    BOUGH_ASSIGN_OR_RETURN(const AttentionPlan p, plan::authors_plan(object));
    const Status status = validate_plan(p);
    return status.ok() ? Result<AttentionPlan>(p) : invalid("translated into an attention plan, " + status.message());
  }
  AttentionPlan p = plan::base_of(Mode::stages);
  if (auto mode = object.find("mode"); mode != object.end()) {
    BOUGH_RETURN_IF_ERROR(read_name(*mode, "mode", plan::mode_names(), &p.mode));
    p = plan::base_of(p.mode);
  }
  BOUGH_RETURN_IF_ERROR(read_fields(object, plan_fields, "", p));
  BOUGH_RETURN_IF_ERROR(validate_plan(p));
  return p;
}

Result<AttentionPlan> parse_text(std::string_view text) {
  if (text.size() > plan::kMaxJsonBytes) {
    return invalid("the attention plan has more than " + std::to_string(plan::kMaxJsonBytes) + " bytes, the most that is read");
  }
  try {
    Json object;
    BOUGH_RETURN_IF_ERROR(plan::parse_strict(text, object));
    return plan_of(object);
  } catch (const Json::exception&) {
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
  std::string text(plan::kMaxJsonBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return Status(Code::io_error, "cannot read the attention plan " + quote(path));
  text.resize(static_cast<size_t>(file.gcount()));
  Result<AttentionPlan> result = parse_text(text);
  if (!result.ok()) return Status(result.status().code(), quote(path) + ": " + result.status().message());
  return result;
}

}  // namespace

Result<AttentionPlan> parse_plan(std::string_view spec) {
  if (auto preset = plan::find_preset(spec)) return *preset;
  if (spec.starts_with('{')) return parse_text(spec);
  if (spec.empty() || spec.find('\0') != std::string_view::npos) return unknown_plan(spec);
  try {
    return parse_file(std::string(spec));
  } catch (const std::exception&) {
    return Status(Code::io_error, "cannot read the attention plan " + quote(spec));
  }
}

}  // namespace bough
