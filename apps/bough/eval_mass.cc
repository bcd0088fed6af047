// bough eval mass: how much attention a plan's selection keeps, by layer and head, several plans side by side.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/check.h"
#include "cli.h"
#include "eval/mass_report.h"
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
  bool heads = false;
  bool json = false;
};

Result<eval::Corpus> read_corpus(const Engine& engine, const std::string& text) {
  if (text == eval::filler_name) return eval::filler_corpus(engine);
  BOUGH_ASSIGN_OR_RETURN(const std::string content, read_text(text));
  return eval::text_corpus(engine, text, content);
}

Result<eval::MassRecord> measure(const MassCommand& options, const std::string& plan) {
  eval::MassRecord record{.text = std::filesystem::path(options.text).filename().string(), .length = options.length};
  BOUGH_ASSIGN_OR_RETURN(record.plan, plan_label(plan));
  BOUGH_ASSIGN_OR_RETURN(const std::string model, find_model(options.model));
  record.model = std::filesystem::path(model).filename().string();
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
  BOUGH_ASSIGN_OR_RETURN(record.report, eval::run_mass(*engine, corpus, mass));
  reporter.clear();
  return record;
}

// What was finished before an error is printed too.
int evaluate_mass(MassCommand options) {
  start_log(options.model.verbose);
  if (options.plans.empty()) options.plans = {"default"};
  for (const std::string& plan : options.plans) {
    if (const Result<AttentionPlan> parsed = parse_plan(plan); !parsed.ok()) return fail_usage(parsed.status().message());
  }
  catch_interrupt();
  std::vector<eval::MassRecord> records;
  Status status;
  for (const std::string& plan : options.plans) {
    Result<eval::MassRecord> record = measure(options, plan);
    status = record.status();
    if (!status.ok()) break;
    if (options.json) print_line(eval::mass_json(*record));
    records.push_back(std::move(*record));
  }
  if (!options.json && !records.empty()) std::fputs(eval::mass_table(records, options.heads).c_str(), stdout);
  std::fflush(stdout);
  return status.ok() ? exit_ok : fail(status);
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
  command->add_flag("--heads", options->heads, "A row of the table for each head too; --json always has them");
  command->add_flag("--json", options->json, "One JSON object a plan on stdout");
  add_model_options(*command, options->model);
  command->footer(
      "outside: share of the attention that falls outside sinks and window. kept, best, random: shares of that, in the plan's selection,\n"
      "in the exact one of as many chunks, in a random one. top: share of each head's heaviest chunks that these hold. after each stage:\n"
      "shares of outside in the chunks that are left.\n"
      "Example:\n"
      "  bough eval mass --length 8192 --text book.txt --plan default --plan hip");
  command->callback([options, &action] { action = [options] { return evaluate_mass(*options); }; });
}

}  // namespace bough::cli
