// bough inspect FILE: what a model file holds and what a context costs; with --attention what a head looks at.
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/memory.h"
#include "cli.h"
#include "format.h"
#include "inspect_attention.h"
#include "log.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectOptions {
  ModelOptions model;
  std::string file;
  std::string plan = "default";
  AttentionOptions attention;
  bool json = false;
};

struct ContextCost {
  int64_t tokens;
  const char* name;
};

constexpr ContextCost contexts[] = {{8'192, "8K"}, {32'768, "32K"}, {131'072, "128K"}, {1'048'576, "1M"}};

struct Inspection {
  std::string path;
  ModelInfo info;
  AttentionPlan plan;  // fitted to the model
  std::string note;
};

Result<Inspection> inspect_file(const InspectOptions& options) {
  Inspection out;
  BOUGH_ASSIGN_OR_RETURN(out.path, find_model(options.model));
  BOUGH_ASSIGN_OR_RETURN(out.info, inspect_model(out.path));
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan plan, parse_plan(options.plan));
  BOUGH_ASSIGN_OR_RETURN(const std::string label, plan_label(options.plan));
  BOUGH_ASSIGN_OR_RETURN(FittedPlan fitted, fit_plan(plan, out.info.trained_context, label != options.plan));
  out.plan = std::move(fitted.plan);
  out.note = std::move(fitted.note);
  return out;
}

void line(const char* name, const std::string& value) { std::printf("%-18s%s\n", name, value.c_str()); }

void print_contexts(const ModelInfo& info, DType kv) {
  const int64_t total = total_memory();
  const int64_t free = available_memory();
  for (const ContextCost& context : contexts) {
    const int64_t bytes = context.tokens * info.kv_bytes_per_token(kv);
    const std::string verdict = bytes <= free    ? "fits"
                                : bytes <= total ? "fits this machine's memory, but not what is free now"
                                                 : "does not fit this machine";
    std::printf("  %-5s tokens %10s  %s\n", context.name, byte_text(static_cast<double>(bytes)).c_str(), verdict.c_str());
  }
}

void print_inspection(const Inspection& inspection, DType kv) {
  const ModelInfo& info = inspection.info;
  line("file", inspection.path);
  line("file size", byte_text(static_cast<double>(info.file_bytes)));
  line("name", info.name.empty() ? "-" : info.name);
  line("architecture", info.architecture);
  line("parameters", grouped(info.parameters));
  line("weights", info.weight_types + "; a decode step reads " + byte_text(static_cast<double>(info.weight_bytes)));
  line("layers", std::to_string(info.layers));
  line("width", std::to_string(info.d_model) + ", feed forward " + std::to_string(info.ffn));
  line("heads", std::to_string(info.heads) + " of " + std::to_string(info.head_dim) + ", KV heads " + std::to_string(info.kv_heads));
  line("vocabulary", grouped(info.vocab));
  line("trained context", grouped(info.trained_context) + " tokens");
  line("positions", info.rope_scaling.empty() ? "not scaled" : info.rope_scaling);
  if (info.sliding_layers > 0) {
    line("sliding layers", std::to_string(info.sliding_layers) + " of " + std::to_string(info.layers) + " see the last " +
                               grouped(info.sliding_window) + " tokens");
  }
  line("chat template", info.chat_template.empty() ? "none" : grouped(static_cast<int64_t>(info.chat_template.size())) + " bytes");
  const int64_t sees = inspection.plan.context_tokens();
  line("plan", plan_json(inspection.plan));
  line("plan's context", sees == 0 ? "every token, at its true position"
                                   : grouped(sees) + " of " + grouped(info.trained_context) + " trained tokens at once");
  if (!inspection.note.empty()) line("note", inspection.note);
  std::string costs;
  for (const DType type : kAllDTypes) {
    costs += (costs.empty() ? "" : ", ") + grouped(info.kv_bytes_per_token(type)) + (costs.empty() ? " bytes a token in " : " in ") +
             name_of(type);
  }
  line("KV cache", costs);
  line("contexts", std::string("in ") + name_of(kv) + "; memory " + byte_text(static_cast<double>(total_memory())) + ", free " +
                       byte_text(static_cast<double>(available_memory())));
  print_contexts(info, kv);
}

std::string inspection_json(const Inspection& inspection, DType kv) {
  const ModelInfo& info = inspection.info;
  Json costs = Json::array();
  const int64_t free = available_memory();
  for (const ContextCost& context : contexts) {
    const int64_t bytes = context.tokens * info.kv_bytes_per_token(kv);
    costs.push_back(
        {{"tokens", context.tokens}, {"kv_bytes", bytes}, {"fits_total", bytes <= total_memory()}, {"fits_available", bytes <= free}});
  }
  Json by_type = Json::object();
  for (const DType type : kAllDTypes) by_type[name_of(type)] = info.kv_bytes_per_token(type);
  const Json json = {{"file", inspection.path},
                     {"file_bytes", info.file_bytes},
                     {"name", info.name},
                     {"architecture", info.architecture},
                     {"parameters", info.parameters},
                     {"weight_types", info.weight_types},
                     {"weight_bytes", info.weight_bytes},
                     {"layers", info.layers},
                     {"d_model", info.d_model},
                     {"ffn", info.ffn},
                     {"heads", info.heads},
                     {"kv_heads", info.kv_heads},
                     {"head_dim", info.head_dim},
                     {"vocab", info.vocab},
                     {"trained_context", info.trained_context},
                     {"rope_scaling", info.rope_scaling},
                     {"sliding_layers", info.sliding_layers},
                     {"sliding_window", info.sliding_window},
                     {"chat_template", info.chat_template},
                     {"kv", name_of(kv)},
                     {"kv_bytes_per_token", info.kv_bytes_per_token(kv)},
                     {"kv_bytes_per_token_by_type", by_type},
                     {"memory_bytes", total_memory()},
                     {"available_bytes", free},
                     {"contexts", costs},
                     {"plan", Json::parse(plan_json(inspection.plan), nullptr, /*allow_exceptions=*/false)},
                     {"plan_context_tokens", inspection.plan.context_tokens()},
                     {"plan_note", inspection.note}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int inspect(InspectOptions options) {
  start_log(options.model.verbose);
  if (!options.file.empty() && !options.model.model.empty()) return fail_usage("inspect takes FILE or -m FILE, not both");
  if (const Result<AttentionPlan> plan = parse_plan(options.plan); !plan.ok()) return fail_usage(plan.status().message());
  if (!options.file.empty()) options.model.model = options.file;
  if (!options.attention.text.empty()) return inspect_attention(options.model, options.plan, options.attention, options.json);
  const Result<Inspection> inspection = inspect_file(options);
  if (!inspection.ok()) return fail(inspection.status());
  if (options.json) {
    print_line(inspection_json(*inspection, kv_type(options.model)));
  } else {
    print_inspection(*inspection, kv_type(options.model));
  }
  return exit_ok;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a model file holds, what a context will cost, and what a head looks at");
  command->add_option("FILE", options->file, "Model, a GGUF file; without it the embedded one")->option_text(" ");
  add_model_options(*command, options->model);
  add_plan_option(*command, options->plan);
  add_attention_options(*command, options->attention);
  command->add_flag("--json", options->json, "One JSON object");
  command->footer(
      "Example:\n"
      "  bough inspect model.gguf\n"
      "  bough inspect model.gguf --attention book.txt --plan default --layer 12 --head 3 --out attention.svg");
  command->callback([options, &action] { action = [options] { return inspect(*options); }; });
}

}  // namespace bough::cli
