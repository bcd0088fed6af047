#include <cstdlib>

#include "base/check.h"
#include "c/handles.h"

using bough::Result;
using bough::Status;
using bough::c::check_given;
using bough::c::guarded;
using bough::c::hand_out;

namespace bough::c {
namespace {

bough_status* no_memory() {
  static bough_status status{Status(Code::out_of_memory, "no memory for a status")};
  return &status;
}

// Made while there is memory.
[[maybe_unused]] const bough_status* const made_early = no_memory();

void copy_name(const std::string& from, char* to, size_t room) {
  const size_t bytes = std::min(from.size(), room - 1);
  std::memcpy(to, from.data(), bytes);
  to[bytes] = '\0';
}

Status fill_info(const ModelInfo& from, bough_model_info* out) {
  if (out->size < sizeof(size_t) || out->size > sizeof *out) {
    return {Code::invalid_argument, "info.size is " + std::to_string(out->size) + ", it must be at most " + std::to_string(sizeof *out)};
  }
  bough_model_info info{};
  info.size = out->size;
  copy_name(from.architecture, info.architecture, sizeof info.architecture);
  copy_name(from.name, info.name, sizeof info.name);
  copy_name(from.weight_types, info.weight_types, sizeof info.weight_types);
  info.layers = from.layers;
  info.d_model = from.d_model;
  info.heads = from.heads;
  info.kv_heads = from.kv_heads;
  info.head_dim = from.head_dim;
  info.ffn = from.ffn;
  info.vocab = from.vocab;
  info.trained_context = from.trained_context;
  info.parameters = from.parameters;
  info.file_bytes = from.file_bytes;
  info.weight_bytes = from.weight_bytes;
  std::memcpy(static_cast<void*>(out), &info, out->size);
  return {};
}

Result<DType> kv_type_of(const char* name) {
  std::string known;
  for (const DType type : kAllDTypes) {
    if (name != nullptr && std::string_view(name) == name_of(type)) return type;
    known += (known.empty() ? "" : ", ") + std::string(name_of(type));
  }
  return Status(Code::invalid_argument, "kv is '" + std::string(name == nullptr ? "" : name) + "', it must be one of " + known);
}

}  // namespace

bough_status* status_of(const Status& status) noexcept {
  if (status.ok()) return nullptr;
  auto* out = new (std::nothrow) bough_status{status};
  return out == nullptr ? no_memory() : out;
}

Status check_given(const void* pointer, const char* name) {
  if (pointer != nullptr) return {};
  return {Code::invalid_argument, std::string(name) + " is NULL"};
}

Status hand_out(const std::string& text, char** out, size_t* bytes) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) return {Code::out_of_memory, "no memory for a text of " + std::to_string(text.size()) + " bytes"};
  std::memcpy(copy, text.c_str(), text.size() + 1);
  *out = copy;
  if (bytes != nullptr) *bytes = text.size();
  return {};
}

Status hand_out(const std::vector<TokenId>& tokens, int32_t** out, size_t* count) {
  auto* copy = static_cast<int32_t*>(std::malloc(std::max<size_t>(tokens.size(), 1) * sizeof(int32_t)));
  if (copy == nullptr) return {Code::out_of_memory, "no memory for " + std::to_string(tokens.size()) + " tokens"};
  std::copy(tokens.begin(), tokens.end(), copy);
  *out = copy;
  *count = tokens.size();
  return {};
}

}  // namespace bough::c

uint32_t bough_abi_version(void) { return BOUGH_ABI_VERSION; }
const char* bough_version(void) { return BOUGH_VERSION; }

bough_code bough_status_code(const bough_status* status) {
  return status == nullptr ? BOUGH_OK : static_cast<bough_code>(status->status.code());
}
const char* bough_status_message(const bough_status* status) { return status == nullptr ? "" : status->status.message().c_str(); }
void bough_status_free(bough_status* status) {
  if (status != bough::c::no_memory()) delete status;
}
void bough_free(void* memory) { std::free(memory); }

bough_status* bough_plan_parse(const char* spec, char** json) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(spec, "spec"));
    BOUGH_RETURN_IF_ERROR(check_given(json, "json"));
    BOUGH_ASSIGN_OR_RETURN(const bough::AttentionPlan plan, bough::parse_plan(spec));
    return hand_out(bough::plan_json(plan), json, nullptr);
  });
}

const char* bough_plan_preset(size_t index) {
  try {
    static const std::vector<std::string> names = bough::preset_names();
    return index < names.size() ? names[index].c_str() : nullptr;
  } catch (const std::exception&) {
    return nullptr;
  }
}

bough_status* bough_inspect_model(const char* path, bough_model_info* info) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(path, "path"));
    BOUGH_RETURN_IF_ERROR(check_given(info, "info"));
    BOUGH_ASSIGN_OR_RETURN(const bough::ModelInfo from, bough::inspect_model(path));
    return bough::c::fill_info(from, info);
  });
}

void bough_engine_options_init(bough_engine_options* options, size_t size) {
  bough::c::set_defaults(options, size, bough_engine_options{.size = 0, .model = nullptr, .plan = "default", .kv = "bf16", .threads = 0});
}

bough_status* bough_engine_open(const bough_engine_options* options, bough_engine** engine) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(options, "options"));
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_ASSIGN_OR_RETURN(const bough_engine_options o, bough::c::complete(options, bough_engine_options_init, "options"));
    BOUGH_RETURN_IF_ERROR(check_given(o.model, "options.model"));
    BOUGH_RETURN_IF_ERROR(check_given(o.plan, "options.plan"));
    BOUGH_ASSIGN_OR_RETURN(const bough::DType kv, bough::c::kv_type_of(o.kv));
    BOUGH_ASSIGN_OR_RETURN(auto opened, bough::Engine::open({.model = o.model, .plan = o.plan, .kv = kv, .threads = o.threads}));
    *engine = new bough_engine{std::move(opened)};
    return {};
  });
}

void bough_engine_free(bough_engine* engine) { delete engine; }

bough_status* bough_engine_info(const bough_engine* engine, bough_model_info* info) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_RETURN_IF_ERROR(check_given(info, "info"));
    return bough::c::fill_info(engine->engine->info(), info);
  });
}

bough_status* bough_engine_plan(const bough_engine* engine, char** json) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_RETURN_IF_ERROR(check_given(json, "json"));
    return hand_out(bough::plan_json(engine->engine->plan()), json, nullptr);
  });
}

int64_t bough_engine_cache_bytes(const bough_engine* engine) { return engine == nullptr ? 0 : engine->engine->cache_bytes(); }

bough_status* bough_tokenize(const bough_engine* engine, const char* text, size_t bytes, uint32_t flags, int32_t** tokens, size_t* count) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    if (bytes > 0) BOUGH_RETURN_IF_ERROR(check_given(text, "text"));
    BOUGH_RETURN_IF_ERROR(check_given(tokens, "tokens"));
    BOUGH_RETURN_IF_ERROR(check_given(count, "count"));
    BOUGH_ASSIGN_OR_RETURN(const auto ids, engine->engine->tokenize(std::string_view(text, bytes), (flags & BOUGH_ADD_BOS) != 0,
                                                                    (flags & BOUGH_SPECIAL) != 0));
    return hand_out(ids, tokens, count);
  });
}

bough_status* bough_detokenize(const bough_engine* engine, const int32_t* tokens, size_t count, uint32_t flags, char** text,
                               size_t* bytes) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    if (count > 0) BOUGH_RETURN_IF_ERROR(check_given(tokens, "tokens"));
    BOUGH_RETURN_IF_ERROR(check_given(text, "text"));
    BOUGH_ASSIGN_OR_RETURN(const std::string out, engine->engine->detokenize({tokens, count}, (flags & BOUGH_SPECIAL) != 0));
    return hand_out(out, text, bytes);
  });
}

int bough_is_end_of_text(const bough_engine* engine, int32_t token) {
  return engine != nullptr && engine->engine->is_end_of_text(token) ? 1 : 0;
}

bough_status* bough_chat_prompt(const bough_engine* engine, const char* const* roles, const char* const* contents, size_t messages,
                                int32_t** tokens, size_t* count) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_RETURN_IF_ERROR(check_given(tokens, "tokens"));
    BOUGH_RETURN_IF_ERROR(check_given(count, "count"));
    std::vector<bough::ChatMessage> chat;
    for (size_t i = 0; i < messages; ++i) {
      BOUGH_RETURN_IF_ERROR(check_given(roles == nullptr ? nullptr : roles[i], "a role"));
      BOUGH_RETURN_IF_ERROR(check_given(contents == nullptr ? nullptr : contents[i], "a content"));
      chat.push_back({roles[i], contents[i]});
    }
    BOUGH_ASSIGN_OR_RETURN(const auto ids, engine->engine->chat_prompt(chat));
    return hand_out(ids, tokens, count);
  });
}
