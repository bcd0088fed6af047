// bough eval passkey|ppl: quality figures that anyone can repeat, one cell after the other.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/check.h"
#include "cli.h"
#include "eval/corpus.h"
#include "eval/passkey.h"
#include "eval/ppl.h"
#include "eval/report.h"
#include "eval_mass.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"

namespace bough::cli {
namespace {

constexpr int64_t one_haystack_from = 65'536;  // tokens

struct EvalOptions {
  ModelOptions model;
  std::vector<std::string> plans;
  std::vector<std::string> texts;
  std::string task;
  std::string lengths = "8192,32768";
  std::string out;
  int trials = 10;
  uint64_t seed = 0;
  bool one_haystack = false;
  bool many_haystacks = false;
  bool json = false;
};

// Finished cells of an earlier run, and the file that the next ones go to.
class ResultFile {
 public:
  // Errors: io_error. Lines that are no results are passed over.
  static Result<ResultFile> open(const std::string& path);
  bool has(const eval::Cell& cell) const { return finished_.count(eval::cell_key(cell)) > 0; }
  Status add(const eval::Cell& cell);

 private:
  std::string path_;
  std::set<std::string> finished_;
  bool needs_newline_ = false;  // the last run ended in the middle of a line
};

Result<ResultFile> ResultFile::open(const std::string& path) {
  ResultFile file;
  file.path_ = path;
  if (path.empty()) return file;
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    file.needs_newline_ = in.eof() && !line.empty();
    if (const Result<eval::Cell> cell = eval::parse_cell(line); cell.ok()) file.finished_.insert(eval::cell_key(*cell));
  }
  if (!std::ofstream(path, std::ios::app)) return Status(Code::io_error, "the file '" + path + "' cannot be written");
  return file;
}

Status ResultFile::add(const eval::Cell& cell) {
  if (path_.empty()) return Status();
  std::ofstream out(path_, std::ios::app);
  if (std::exchange(needs_newline_, false)) out << '\n';
  out << eval::cell_json(cell) << '\n' << std::flush;
  if (!out) return Status(Code::io_error, "the file '" + path_ + "' cannot be written");
  finished_.insert(eval::cell_key(cell));
  return Status();
}

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, ResultFile file) : options_(options), file_(std::move(file)) {}

  Status run_plan(const std::string& plan);

 private:
  eval::Cell expected_cell(const std::string& label, const eval::Corpus& corpus, int64_t length) const;
  Result<eval::Cell> run_cell(Engine& engine, const eval::Corpus& corpus, const eval::Cell& expected);
  Status run_text(Engine& engine, const std::string& label, const eval::Corpus& corpus);
  Result<const eval::Corpus*> corpus(const Engine& engine, const std::string& text);
  void print(const eval::Cell& cell) const;

  const EvalOptions& options_;
  ResultFile file_;
  std::map<std::string, eval::Corpus> corpora_;  // every plan reads the same tokens
};

std::string base_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

Result<const eval::Corpus*> Evaluation::corpus(const Engine& engine, const std::string& text) {
  const auto found = corpora_.find(text);
  if (found != corpora_.end()) return &found->second;
  if (text == eval::filler_name) {
    BOUGH_ASSIGN_OR_RETURN(eval::Corpus filler, eval::filler_corpus(engine));
    return &corpora_.emplace(text, std::move(filler)).first->second;
  }
  BOUGH_ASSIGN_OR_RETURN(const std::string content, read_text(text));
  BOUGH_ASSIGN_OR_RETURN(eval::Corpus read, eval::text_corpus(engine, base_name(text), content));
  log_info("the text '" + text + "' has " + grouped(static_cast<int64_t>(read.tokens.size())) + " tokens");
  return &corpora_.emplace(text, std::move(read)).first->second;
}

eval::Cell Evaluation::expected_cell(const std::string& label, const eval::Corpus& corpus, int64_t length) const {
  eval::Cell cell{
      .task = options_.task, .plan = label, .length = length, .text = corpus.name, .trials = options_.trials, .seed = options_.seed};
  cell.kv = options_.model.kv;
  if (options_.task == "ppl") {
    cell.seed = 0;
    const Result<std::vector<int64_t>> offsets = eval::ppl_offsets(corpus, length);
    cell.trials = offsets.ok() ? static_cast<int>(offsets->size()) : 0;
  } else {
    cell.one_haystack = options_.one_haystack || (length >= one_haystack_from && !options_.many_haystacks);
  }
  return cell;
}

Result<eval::Cell> Evaluation::run_cell(Engine& engine, const eval::Corpus& corpus, const eval::Cell& expected) {
  const std::string label = expected.task + " " + grouped(expected.length) + " " + expected.text;
  ProgressReporter reporter(label, options_.json ? ProgressStyle::lines : progress_style(false));
  const auto progress = [&](const Progress& p) {
    reporter.update(p.done, p.total, p.seconds);
    return !interrupted();
  };
  if (expected.task == "ppl") return eval::run_ppl(engine, corpus, {.length = expected.length, .progress = progress});
  eval::PasskeyOptions passkey{.length = expected.length, .trials = expected.trials, .seed = expected.seed};
  passkey.one_haystack = expected.one_haystack;
  passkey.progress = progress;
  passkey.on_result = [&](const eval::PasskeyResult& result) {
    reporter.clear();
    log_info("trial " + std::to_string(result.trial) + ": key " + result.key + " at token " + grouped(result.needle) + ", " +
             std::to_string(result.right) + " of " + std::to_string(result.answer_tokens) + " answer tokens right, source " +
             std::to_string(result.source_rank));
  };
  return eval::run_passkey(engine, corpus, passkey);
}

void Evaluation::print(const eval::Cell& cell) const {
  if (options_.json) {
    print_line(eval::cell_json(cell));
    return;
  }
  std::fputs(eval::cell_table_row(cell).c_str(), stdout);
  std::fflush(stdout);
}

Status Evaluation::run_text(Engine& engine, const std::string& label, const eval::Corpus& corpus) {
  for (const int64_t length : read_number_list(options_.lengths)) {
    eval::Cell expected = expected_cell(label, corpus, length);
    expected.model = base_name(options_.model.model.empty() ? default_model_path() : options_.model.model);
    if (file_.has(expected)) {
      log_info(expected.task + " " + label + " " + grouped(length) + " " + corpus.name + " is finished already");
      continue;
    }
    BOUGH_ASSIGN_OR_RETURN(eval::Cell cell, run_cell(engine, corpus, expected));
    cell.plan = expected.plan;
    cell.model = expected.model;
    cell.kv = expected.kv;
    print(cell);
    BOUGH_RETURN_IF_ERROR(file_.add(cell));
  }
  return Status();
}

Status Evaluation::run_plan(const std::string& plan) {
  BOUGH_ASSIGN_OR_RETURN(const std::string label, plan_label(plan));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(options_.model, plan));
  const std::vector<int64_t> lengths = read_number_list(options_.lengths);
  BOUGH_RETURN_IF_ERROR(check_memory(engine->info(), engine->kv_type(), *std::max_element(lengths.begin(), lengths.end())));
  for (const std::string& text : options_.texts) {
    BOUGH_ASSIGN_OR_RETURN(const eval::Corpus* read, corpus(*engine, text));
    BOUGH_RETURN_IF_ERROR(run_text(*engine, label, *read));
  }
  return Status();
}

int evaluate(EvalOptions options) {
  start_log(options.model.verbose);
  if (options.plans.empty()) options.plans = {"default"};
  if (options.texts.empty()) options.texts = {std::string(eval::filler_name)};
  if (options.one_haystack && options.many_haystacks) return fail_usage("--one-haystack and --many-haystacks exclude each other");
  for (const std::string& plan : options.plans) {
    if (const Result<AttentionPlan> parsed = parse_plan(plan); !parsed.ok()) return fail_usage(parsed.status().message());
  }
  for (const std::string& text : options.texts) {
    if (text == eval::filler_name) continue;
    if (const Result<std::string> content = read_text(text); !content.ok()) return fail(content.status());
  }
  Result<ResultFile> file = ResultFile::open(options.out);
  if (!file.ok()) return fail(file.status());
  catch_interrupt();
  if (!options.json) {
    std::fputs(eval::cell_table_header().c_str(), stdout);
    std::fflush(stdout);
  }
  Evaluation evaluation(options, std::move(*file));
  for (const std::string& plan : options.plans) {
    const Status status = evaluation.run_plan(plan);
    if (status.code() == Code::cancelled) return fail(Status(Code::cancelled, "interrupted; finished cells are kept"));
    if (!status.ok()) return fail(status);
  }
  return exit_ok;
}

void add_repeatable(CLI::App& command, const char* name, std::vector<std::string>& values, const char* help, const char* type) {
  command.add_option(name, values, help)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->type_name(type);
}

void add_common(CLI::App& command, EvalOptions& options) {
  command.add_option("--lengths", options.lengths, "Tokens of each prompt, comma-separated")
      ->check(number_list(1, max_length))
      ->type_name("N,N...")
      ->capture_default_str();
  add_repeatable(command, "--text", options.texts, "A text file, or filler (the default); may be given several times", "FILE|filler");
  add_repeatable(command, "-p,--plan", options.plans, "Attention plan, as for ask; may be given several times", "NAME|JSON|FILE");
  command.add_option("--out", options.out, "Append each cell to this file as a line of JSON; cells already there are not run again")
      ->type_name("FILE");
  command.add_flag("--json", options.json, "One JSON object a cell on stdout");
  add_model_options(command, options.model);
}

void set_action(CLI::App& command, const std::shared_ptr<EvalOptions>& options, Action& action) {
  command.callback([options, &action] { action = [options] { return evaluate(*options); }; });
}

void add_passkey(CLI::App& eval, Action& action) {
  auto options = std::make_shared<EvalOptions>();
  options->task = "passkey";
  CLI::App* command = eval.add_subcommand("passkey", "Find five digits hidden in a long text");
  command->add_option("--trials", options->trials, "Prompts a cell, the key's depth spread evenly")
      ->check(whole_number(1, 10'000))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the keys")
      ->check(whole_number(0, INT64_MAX))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--one-haystack", options->one_haystack,
                    "All trials of a cell in the same stretch of text (always so from 65,536 tokens on)");
  command->add_flag("--many-haystacks", options->many_haystacks, "Another stretch of text for each trial at every length");
  add_common(*command, *options);
  command->footer(
      "Example:\n"
      "  bough eval passkey --lengths 8192,32768 --trials 10 --text filler --text book.txt --plan default --out cells.jsonl");
  set_action(*command, options, action);
}

void add_ppl(CLI::App& eval, Action& action) {
  auto options = std::make_shared<EvalOptions>();
  options->task = "ppl";
  CLI::App* command = eval.add_subcommand("ppl", "Cross-entropy of the last 512 tokens of long texts");
  add_common(*command, *options);
  command->footer(
      "Example:\n"
      "  bough eval ppl --lengths 8192,32768 --text book.txt --plan default --plan dense");
  set_action(*command, options, action);
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("eval", "Measure quality: passkey, ppl, mass");
  command->require_subcommand(1);
  add_passkey(*command, action);
  add_ppl(*command, action);
  add_eval_mass(*command, action);
  command->footer(
      "Example:\n"
      "  bough eval passkey --lengths 8192 --text filler\n"
      "\n"
      "Each task explains itself: bough eval passkey --help");
}

}  // namespace bough::cli
