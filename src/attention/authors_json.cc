#include "attention/authors_json.h"

#include <algorithm>
#include <optional>

namespace bough::plan {
namespace {

using Path = const std::string&;

struct AuthorsStage {
  StagePlan plan;
  std::optional<Scan> scan;  // overrides the layer's
};

struct AuthorsLayer {
  int64_t k = 2048;
  int64_t window = 1024;
  int64_t sinks = 256;
  Positions positions = Positions::streaming;
  std::optional<Scan> scan;
  std::vector<AuthorsStage> stages = {{{.chunk = 256, .keep = 0, .query_block = 64, .query_stride = 4}, {}},
                                      {{.chunk = 32, .keep = 32768, .query_block = 64, .query_stride = 4}, {}},
                                      {{.chunk = 8, .keep = 8192, .query_block = 64, .query_stride = 1}, {}}};
};

struct AuthorsConfig {
  std::vector<int> special = {0, 1, 2, 3, 31};
  std::vector<int> refresh = {32, 16, 8};
  bool extend = true;
  int query_block = 64;
  std::vector<AuthorsLayer> layers = {{.k = 4096}, {}};
};

Status unsupported(Path field, const std::string& value, const std::string& why) {
  return {Code::unsupported, field + " is " + value + ", " + why};
}

Status read_bool(const Json& value, Path field, bool* out) {
  if (!value.is_boolean()) return invalid(field + " is " + text_of(value) + ", must be true or false");
  *out = value.get<bool>();
  return {};
}

// A switch that has one setting here.
Status read_fixed(const Json& value, Path field, bool only, const std::string& why) {
  bool given = only;
  BOUGH_RETURN_IF_ERROR(read_bool(value, field, &given));
  if (given == only) return {};
  return unsupported(field, given ? "true" : "false", why);
}

Status read_scan(const Json& value, Path field, std::optional<Scan>& out) {
  static constexpr std::array<std::string_view, 5> names = {"relative", "streaming", "infllm", "dynamic_extend", "self_extend"};
  out.reset();
  if (value.is_null()) return {};
  return read_name(value, field, names, &out.emplace());  // in the order of Scan: "streaming" is chunk_indexed
}

Status read_positions(const Json& value, Path field, Positions& out) {
  static constexpr std::array<std::string_view, 3> names = {"streaming", "infllm", "dynamic_extend"};
  static constexpr std::array<Positions, 3> values = {Positions::streaming, Positions::infllm, Positions::dynamic_extend};
  if (value == "self_extend") return unsupported(field, "\"self_extend\"", "which only scans have, use one of " + join(names));
  size_t i = 0;
  BOUGH_RETURN_IF_ERROR(read_index(value, field, names, &i));
  out = values[i];
  return {};
}

Status read_stage(const Json& value, Path path, bool is_first, AuthorsStage& stage) {
  using S = AuthorsStage;
  static constexpr std::array<Field<S>, 9> fields = {{
      {"stage_block_size_q", [](const Json& v, Path at, S& s) { return read_integer(v, at, 1, kMaxQueryBlock, &s.plan.query_block); }},
      {"stage_block_stride_q", [](const Json& v, Path at, S& s) { return read_integer(v, at, 1, kMaxQueryBlock, &s.plan.query_stride); }},
      {"stage_chunk_size", [](const Json& v, Path at, S& s) { return read_integer(v, at, 1, kMaxChunk, &s.plan.chunk); }},
      {"stage_k", [](const Json& v, Path at, S& s) { return v.is_null() ? Status() : read_integer(v, at, 1, kMaxTokens, &s.plan.keep); }},
      {"stage_stride",
       [](const Json& v, Path at, S&) {
         int64_t stride = 0;
         BOUGH_RETURN_IF_ERROR(read_int64(v, at, 1, kMaxTokens, &stride));
         return stride == 1 ? Status() : unsupported(at, v.dump(), "but every query block is searched for: it must be 1");
       }},
      {"stage_extend_backend", [](const Json& v, Path at, S& s) { return read_scan(v, at, s.scan); }},
      {"require_realign_index",
       [](const Json& v, Path at, S&) { return read_fixed(v, at, true, "but chunks always return to their grid"); }},
      {"reset_score", [](const Json& v, Path at, S&) { return read_fixed(v, at, true, "but every stage scores anew"); }},
      {"post_sort", [](const Json& v, Path at, S&) { return read_fixed(v, at, true, "but chunks always go on in text order"); }},
  }};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::object, path));
  BOUGH_RETURN_IF_ERROR(read_fields(value, fields, path + ".", stage));
  for (const char* needed : {"stage_block_size_q", "stage_block_stride_q", "stage_chunk_size"}) {
    if (!value.contains(needed)) return invalid(path + "." + needed + " is missing");
  }
  if (is_first && stage.plan.keep != 0) return invalid(path + ".stage_k is " + std::to_string(stage.plan.keep) + ", must be null");
  if (!is_first && stage.plan.keep == 0) return invalid(path + ".stage_k is missing");
  return {};
}

Status read_stages(const Json& value, Path path, std::vector<AuthorsStage>& stages) {
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::array, path));
  const auto count = static_cast<int64_t>(value.size());
  BOUGH_RETURN_IF_ERROR(check_range("the number of " + path, count, 1, kMaxStages));
  stages.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    BOUGH_RETURN_IF_ERROR(read_stage(value[i], path + "[" + std::to_string(i) + "]", i == 0, stages.emplace_back()));
  }
  return {};
}

Status read_layers(const Json& value, Path path, std::vector<AuthorsLayer>& layers) {
  using L = AuthorsLayer;
  static constexpr std::array<Field<L>, 6> fields = {{
      {"second_stage_k", [](const Json& v, Path at, L& l) { return read_integer(v, at, 1, kMaxTokens, &l.k); }},
      {"sliding_window_size", [](const Json& v, Path at, L& l) { return read_integer(v, at, 1, kMaxTokens, &l.window); }},
      {"sink_token_size", [](const Json& v, Path at, L& l) { return read_integer(v, at, 0, kMaxTokens, &l.sinks); }},
      {"sa_extend_backend", [](const Json& v, Path at, L& l) { return read_positions(v, at, l.positions); }},
      {"scan_extend_backend", [](const Json& v, Path at, L& l) { return read_scan(v, at, l.scan); }},
      {"stages", [](const Json& v, Path at, L& l) { return read_stages(v, at, l.stages); }},
  }};
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::array, path));
  BOUGH_RETURN_IF_ERROR(check_range("the number of " + path, static_cast<int64_t>(value.size()), 1, kMaxLayers));
  layers.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string at = path + "[" + std::to_string(i) + "]";
    BOUGH_RETURN_IF_ERROR(check_type(value[i], Json::value_t::object, at));
    BOUGH_RETURN_IF_ERROR(read_fields(value[i], fields, at + ".", layers.emplace_back()));
    if (layers[i].stages.size() != layers[0].stages.size()) {
      std::string message = at + ".stages has " + std::to_string(layers[i].stages.size()) + " entries, must have as many as ";
      message += path + "[0].stages, " + std::to_string(layers[0].stages.size());
      return invalid(std::move(message));
    }
  }
  return {};
}

Status read_refresh(const Json& value, Path path, std::vector<int>& refresh) {
  if (value.is_array()) return read_integers(value, path, 1, kMaxInterval, kMaxStages, refresh);
  refresh.resize(1);
  return read_integer(value, path, 1, kMaxInterval, refresh.data());
}

using C = AuthorsConfig;

constexpr std::array<Field<C>, 12> config_fields = {{
    {"dense_layers", [](const Json& v, Path at, C& c) { return read_integers(v, at, 0, kMaxLayers - 1, kMaxLayers, c.special); }},
    {"layers", [](const Json& v, Path at, C& c) { return read_layers(v, at, c.layers); }},
    {"prefill_layers", [](const Json&, Path, C&) { return Status(); }},  // compared with layers
    {"mask_refresh_interval", [](const Json& v, Path at, C& c) { return read_refresh(v, at, c.refresh); }},
    {"using_extend", [](const Json& v, Path at, C& c) { return read_bool(v, at, &c.extend); }},
    {"block_sparse_block_size_q", [](const Json& v, Path at, C& c) { return read_integer(v, at, 1, kMaxQueryBlock, &c.query_block); }},
    // The size of a pool of the authors' and a threshold that their code never reads: neither changes a result.
    {"metadata_cache_max_batch_size",
     [](const Json& v, Path at, C&) {
       int64_t unused = 0;
       return read_int64(v, at, 1, kMaxTokens, &unused);
     }},
    {"prefill_dense_threshold",
     [](const Json& v, Path at, C&) {
       int64_t unused = 0;
       return read_int64(v, at, 0, kMaxTokens, &unused);
     }},
    {"apply_v_dot", [](const Json& v, Path at, C&) { return read_fixed(v, at, false, "but values take no part in scores"); }},
    {"prefill_always_dense", [](const Json& v, Path at, C&) { return read_fixed(v, at, false, "use the plan dense"); }},
    {"decode_always_dense", [](const Json& v, Path at, C&) { return read_fixed(v, at, false, "use the plan dense"); }},
    {"force_dense", [](const Json& v, Path at, C&) { return read_fixed(v, at, false, "use the plan dense"); }},
}};

// The scan of a layer: that of its stages where they name one.
Result<Scan> scan_of(const AuthorsLayer& layer, bool special, Path path) {
  const Scan own = layer.scan.value_or(special ? Scan::chunk_indexed : Scan::relative);
  const Scan first = layer.stages[0].scan.value_or(own);
  for (size_t i = 1; i < layer.stages.size(); ++i) {
    if (layer.stages[i].scan.value_or(own) != first) {
      return unsupported(path + ".stages[" + std::to_string(i) + "].stage_extend_backend", "other than that of stages[0]",
                         "but all stages of a layer scan alike");
    }
  }
  return first;
}

Result<LayerPlan> resolved(const AuthorsConfig& c, size_t entry, bool special) {
  const AuthorsLayer& layer = c.layers[entry];
  BOUGH_ASSIGN_OR_RETURN(const Scan scan, scan_of(layer, special, "layers[" + std::to_string(entry) + "]"));
  LayerPlan l;
  l.mode = Mode::stages;
  l.scan = c.extend ? scan : Scan::dynamic_extend;  // which is true positions inside the trained context
  l.positions = c.extend ? layer.positions : Positions::true_positions;
  l.k = layer.k;
  l.window = layer.window;
  l.sinks = layer.sinks;
  for (const AuthorsStage& stage : layer.stages) l.stages.push_back(stage.plan);
  return l;
}

// What of `l` differs from `base`, for no layer yet.
void add_difference(const LayerPlan& l, const LayerPlan& base, std::vector<LayerOverride>& out) {
  LayerOverride& o = out.emplace_back();
  if (l.k != base.k) o.k = l.k;
  if (l.window != base.window) o.window = l.window;
  if (l.sinks != base.sinks) o.sinks = l.sinks;
  if (l.scan != base.scan) o.scan = l.scan;
  if (l.positions != base.positions) o.positions = l.positions;
  if (l.stages != base.stages) o.stages = l.stages;
}

Status translate(const AuthorsConfig& c, AttentionPlan& p) {
  const size_t entries = c.layers.size();
  BOUGH_ASSIGN_OR_RETURN(const LayerPlan base, resolved(c, entries - 1, false));
  p.k = base.k;
  p.window = base.window;
  p.sinks = base.sinks;
  p.scan = base.scan;
  p.positions = base.positions;
  p.stages = base.stages;
  std::vector<LayerPlan> different;  // [p.layers]
  for (int layer = 0; layer < static_cast<int>(kMaxLayers); ++layer) {
    const bool special = std::find(c.special.begin(), c.special.end(), layer) != c.special.end();
    const size_t entry = entries == 2 ? (special ? 0 : 1) : std::min(static_cast<size_t>(layer), entries - 1);
    BOUGH_ASSIGN_OR_RETURN(const LayerPlan l, resolved(c, entry, special));
    if (l == base) continue;
    const auto i = static_cast<size_t>(std::find(different.begin(), different.end(), l) - different.begin());
    if (i == different.size()) {
      different.push_back(l);
      add_difference(l, base, p.layers);
    }
    p.layers[i].layers.push_back(layer);
  }
  return {};
}

Result<AttentionPlan> plan_of(const Json& object) {
  AuthorsConfig c;
  BOUGH_RETURN_IF_ERROR(read_fields(object, config_fields, "", c));
  const size_t stages = c.layers[0].stages.size();
  if (const auto given = object.find("mask_refresh_interval"); given != object.end() && !given->is_array()) {
    c.refresh.assign(stages, c.refresh[0]);
  }
  if (c.refresh.size() != stages) {
    return invalid("mask_refresh_interval has " + std::to_string(c.refresh.size()) + " entries, must have as many as stages, " +
                   std::to_string(stages));
  }
  for (const AuthorsLayer& layer : c.layers) {
    const int block = layer.stages[0].plan.query_block;
    if (block == c.query_block) continue;
    return unsupported("block_sparse_block_size_q", std::to_string(c.query_block),
                       "but attention shares the query blocks of the stages: it must be stage_block_size_q, " + std::to_string(block));
  }
  AttentionPlan p = base_of(Mode::stages);
  p.first.reset();
  p.row_k = 0;
  p.refresh = c.refresh;
  BOUGH_RETURN_IF_ERROR(translate(c, p));
  return p;
}

}  // namespace

bool is_authors_json(const Json& object) {
  for (const auto& field : config_fields) {
    if (field.name != "layers" && object.contains(std::string(field.name))) return true;
  }
  const auto layers = object.find("layers");
  if (layers == object.end() || !layers->is_array() || layers->empty() || !layers->front().is_object()) return false;
  const Json& layer = layers->front();
  for (const char* key : {"second_stage_k", "sliding_window_size", "sink_token_size", "sa_extend_backend", "scan_extend_backend"}) {
    if (layer.contains(key)) return true;
  }
  const auto stages = layer.find("stages");
  return stages != layer.end() && stages->is_array() && !stages->empty() && stages->front().contains("stage_chunk_size");
}

Result<AttentionPlan> authors_plan(const Json& object) {
  BOUGH_ASSIGN_OR_RETURN(AttentionPlan p, plan_of(object));
  const auto prefill = object.find("prefill_layers");
  if (prefill == object.end()) return p;
  std::vector<AuthorsLayer> checked;
  BOUGH_RETURN_IF_ERROR(read_layers(*prefill, "prefill_layers", checked));
  Json prefilling = object;
  prefilling["layers"] = *prefill;
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan q, plan_of(prefilling));
  if (p == q) return p;
  return Status(Code::unsupported, std::string("prefill_layers differ from layers") +
                                       (object.contains("layers") ? "" : ", which have their defaults") +
                                       ", but prefill and decode have one plan");
}

}  // namespace bough::plan
