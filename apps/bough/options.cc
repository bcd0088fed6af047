#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/check.h"
#include "base/memory.h"
#include "cli.h"
#include "format.h"
#include "log.h"

namespace bough::cli {
namespace {

constexpr const char* default_model = "SmolLM2-135M-Instruct.Q4_1.gguf";

template <typename Number>
bool read_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// Empty, or why `text` is no whole number of lo..hi.
std::string check_whole(std::string_view text, int64_t lo, int64_t hi) {
  const std::string limits = std::to_string(lo) + " to " + std::to_string(hi);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool number = end == text.data() + text.size() && !text.empty();
  if (number && error == std::errc() && value >= lo && value <= hi) return {};
  if (number) return std::string(text) + " is outside " + limits;
  return "'" + std::string(text) + "' is not a whole number of " + limits;
}

std::string shortest(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType type : kAllDTypes) {
    if (name == name_of(type)) return type;
  }
  return std::nullopt;
}

template <typename Visit>
void for_each_item(std::string_view text, Visit visit) {
  while (true) {
    const size_t comma = text.find(',');
    visit(text.substr(0, comma));
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

CLI::Validator whole_number(int64_t lo, int64_t hi) {
  return CLI::Validator([lo, hi](std::string& text) { return check_whole(text, lo, hi); }, "");
}

CLI::Validator number_between(double lo, double hi) {
  return CLI::Validator(
      [lo, hi](std::string& text) {
        double value = 0;
        if (!read_number(text, value) || std::isnan(value)) return "'" + text + "' is not a number";
        if (value >= lo && value <= hi) return std::string();
        return text + " is outside " + shortest(lo) + " to " + shortest(hi);
      },
      "");
}

CLI::Validator number_list(int64_t lo, int64_t hi) {
  return CLI::Validator(
      [lo, hi](std::string& text) {
        std::string error;
        for_each_item(text, [&](std::string_view item) {
          if (error.empty()) error = check_whole(item, lo, hi);
        });
        return error;
      },
      "");
}

std::vector<int64_t> read_number_list(std::string_view text) {
  std::vector<int64_t> numbers;
  for_each_item(text, [&](std::string_view item) {
    int64_t value = 0;
    if (read_number(item, value)) numbers.push_back(value);
  });
  return numbers;
}

void add_model_option(CLI::App& command, ModelOptions& options) {
  command.add_option("-m,--model", options.model, "Model, a GGUF file; without it the embedded SmolLM2-135M-Instruct")->type_name("FILE");
  command.add_flag("-v,--verbose", options.verbose, "Log what was chosen on stderr");
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  add_model_option(command, options);
  command.add_option("-t,--threads", options.threads, "Threads, 1 to 1024; without it as many as the process may use")
      ->check(whole_number(1, 1024))
      ->type_name("N");
  command.add_option("--kv", options.kv, "Type of the KV cache: bf16, f32, int8 or int4")
      ->check(CLI::Validator(
          [](std::string& text) { return dtype_named(text) ? std::string() : "'" + text + "' is none of bf16, f32, int8, int4"; }, ""))
      ->type_name("TYPE")
      ->capture_default_str();
}

void add_memory_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--kv-memory", options.kv_memory_gigabytes,
                  "Memory for the KV cache, in GB; beyond it the files of texts that are kept are used. Without it half of what is free")
      ->check(number_between(0.001, 1'000'000))
      ->type_name("GB");
}

void add_plan_option(CLI::App& command, std::string& plan) {
  command
      .add_option("-p,--plan", plan,
                  "Attention plan: a preset (" + joined(preset_names(), ", ") + "), a JSON object, or a file that holds one")
      ->type_name("NAME|JSON|FILE")
      ->capture_default_str();
}

std::string cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  std::string cache = variable("BOUGH_CACHE");
  if (!cache.empty()) return cache;
  const std::string xdg = variable("XDG_CACHE_HOME");
  return (xdg.empty() ? variable("HOME") + "/.cache" : xdg) + "/bough";
}

std::string default_model_path() { return cache_folder() + "/models/" + default_model; }

Result<std::string> find_model(const ModelOptions& options) {
  if (!options.model.empty()) return options.model;
  const std::string path = default_model_path();
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path;
  return Status(Code::not_found,
                "the embedded model is not at " + path + "; get it with tools/fetch_model.sh, or name a GGUF file with -m");
}

DType kv_type(const ModelOptions& options) { return dtype_named(options.kv).value_or(DType::bf16); }

Result<std::string> plan_label(const std::string& spec) {
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan plan, parse_plan(spec));
  for (const std::string& name : preset_names()) {
    if (name == spec) return spec;
  }
  return plan_json(plan);
}

// Without shared pages: a command has one session, and what is measured must be computed.
Result<std::unique_ptr<Engine>> open_engine(const ModelOptions& options, const std::string& plan) {
  BOUGH_ASSIGN_OR_RETURN(const std::string model, find_model(options));
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                         Engine::open({.model = model,
                                       .plan = plan,
                                       .kv = kv_type(options),
                                       .threads = options.threads,
                                       .prefix_bytes = 0,
                                       .kv_memory = static_cast<int64_t>(options.kv_memory_gigabytes * 1e9)}));
  log_engine(*engine, model);
  return engine;
}

Status check_memory(const ModelInfo& info, DType kv, int64_t tokens) {
  const int64_t free = available_memory();
  const int64_t per_token = info.kv_bytes_per_token(kv);
  if (free <= 0 || per_token <= 0 || tokens <= free / per_token) return Status();
  return Status(Code::out_of_memory, "a context of " + grouped(tokens) + " tokens takes " +
                                         byte_text(static_cast<double>(tokens) * static_cast<double>(per_token)) + " of KV cache in " +
                                         name_of(kv) + ", and " + byte_text(static_cast<double>(free)) + " of memory are free");
}

Status check_memory_of_kept(const ModelInfo& info, DType kv, int64_t tokens) {
  const int64_t free = available_memory();
  const int64_t per_token = info.kv_bytes_per_token(kv == DType::f32 ? DType::f32 : DType::bf16) / 16;
  if (free <= 0 || per_token <= 0 || tokens <= free / per_token) return Status();
  return Status(Code::out_of_memory, "searching a context of " + grouped(tokens) + " tokens takes up to " +
                                         byte_text(static_cast<double>(tokens) * static_cast<double>(per_token)) +
                                         " of memory beside its KV cache, and " + byte_text(static_cast<double>(free)) + " are free");
}

}  // namespace bough::cli
