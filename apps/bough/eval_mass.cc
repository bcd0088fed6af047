// bough eval mass: how much attention mass a plan's selection keeps, layer by layer.
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "cli.h"
#include "eval/mass.h"
#include "eval_mass.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"

namespace bough::cli {
namespace {

struct MassCommand {
  ModelOptions model;
  std::vector<std::string> plans;
  std::string text = std::string(eval::filler_name);
  int64_t length = 8192;
  int blocks = 8;
  bool json = false;
};

constexpr const char* row_format = "%-24s %6s %8s %8s %8s %8s\n";

void print_row(const std::string& plan, const eval::LayerMass& m) {
  const std::string layer = m.layer < 0 ? "all" : std::to_string(m.layer);
  std::printf(row_format, plan.c_str(), layer.c_str(), fixed(m.outside, 4).c_str(), fixed(m.kept, 4).c_str(), fixed(m.best, 4).c_str(),
              fixed(m.random, 4).c_str());
}

nlohmann::ordered_json layer_json(const eval::LayerMass& m) {
  return {{"layer", m.layer}, {"outside", m.outside}, {"kept", m.kept}, {"best", m.best}, {"random", m.random}};
}

void print_json(const MassCommand& options, const std::string& plan, const eval::MassReport& report) {
  nlohmann::ordered_json json = {{"task", "mass"},
                                 {"plan", plan},
                                 {"length", options.length},
                                 {"text", options.text},
                                 {"blocks", report.blocks},
                                 {"true_positions", report.true_positions},
                                 {"seconds", report.seconds},
                                 {"all", layer_json(report.all)},
                                 {"layers", nlohmann::ordered_json::array()}};
  for (const eval::LayerMass& m : report.layers) json["layers"].push_back(layer_json(m));
  print_line(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

Result<eval::Corpus> read_corpus(const Engine& engine, const std::string& text) {
  if (text == eval::filler_name) return eval::filler_corpus(engine);
  BOUGH_ASSIGN_OR_RETURN(const std::string content, read_text(text));
  return eval::text_corpus(engine, text, content);
}

Status measure(const MassCommand& options, const std::string& plan) {
  BOUGH_ASSIGN_OR_RETURN(const std::string label, plan_label(plan));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(options.model, plan));
  BOUGH_RETURN_IF_ERROR(check_memory(engine->info(), engine->kv_type(), options.length));
  BOUGH_ASSIGN_OR_RETURN(const eval::Corpus corpus, read_corpus(*engine, options.text));
  ProgressReporter reporter("mass " + grouped(options.length) + " " + corpus.name,
                            options.json ? ProgressStyle::lines : progress_style(false));
  eval::MassOptions mass{.length = options.length, .blocks = options.blocks};
  mass.progress = [&](const Progress& p) {
    reporter.update(p.done, p.total, p.seconds);
    return !interrupted();
  };
  BOUGH_ASSIGN_OR_RETURN(const eval::MassReport report, eval::run_mass(*engine, corpus, mass));
  reporter.clear();
  if (options.json) {
    print_json(options, label, report);
    return {};
  }
  for (const eval::LayerMass& m : report.layers) print_row(label, m);
  print_row(label, report.all);
  std::fflush(stdout);
  return {};
}

int evaluate_mass(MassCommand options) {
  start_log(options.model.verbose);
  if (options.plans.empty()) options.plans = {"default"};
  for (const std::string& plan : options.plans) {
    if (const Result<AttentionPlan> parsed = parse_plan(plan); !parsed.ok()) return fail_usage(parsed.status().message());
  }
  catch_interrupt();
  if (!options.json) std::printf(row_format, "plan", "layer", "outside", "kept", "best", "random");
  for (const std::string& plan : options.plans) {
    if (const Status status = measure(options, plan); !status.ok()) return fail(status);
  }
  return exit_ok;
}

}  // namespace

void add_eval_mass(CLI::App& eval, Action& action) {
  auto options = std::make_shared<MassCommand>();
  CLI::App* command = eval.add_subcommand("mass", "Attention mass that a plan's selection keeps, beside the best and a random one");
  command->add_option("--length", options->length, "Tokens of the text; up to the trained context positions are the true ones")
      ->check(whole_number(1, max_length))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--blocks", options->blocks, "Query blocks to sample")
      ->check(whole_number(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--text", options->text, "A text file, or filler")->type_name("FILE|filler")->capture_default_str();
  command->add_option("-p,--plan", options->plans, "Attention plan, as for ask; may be given several times")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->type_name("NAME|JSON|FILE");
  command->add_flag("--json", options->json, "One JSON object a plan on stdout");
  add_model_options(*command, options->model);
  command->footer(
      "outside: share of the attention that falls outside sinks and window. kept, best, random: shares of that.\n"
      "Example:\n"
      "  bough eval mass --length 8192 --text book.txt --plan default --plan hip");
  command->callback([options, &action] { action = [options] { return evaluate_mass(*options); }; });
}

}  // namespace bough::cli
