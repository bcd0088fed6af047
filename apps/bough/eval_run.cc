// Plans, texts, lengths and bands of quality tasks; finished cells are kept.
#include "eval_run.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"
#include "eval/logits_error.h"
#include "eval/ppl.h"
#include "eval/report.h"
#include "eval/results.h"
#include "eval/trials.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"

namespace bough::cli {
namespace {

constexpr int64_t one_haystack_from = 65'536;  // tokens

std::string base_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

// Cells that are run together, in one pass or on one session: all bands of a task, text and length.
struct Group {
  const EvalTask* task = nullptr;
  std::string text;               // key of Evaluation::texts_
  std::vector<eval::Cell> cells;  // as asked for, without a plan; the shallowest band first
  int64_t length() const { return cells.front().length; }
};

// A text as it was named and read.
struct NamedText {
  std::string name;
  std::string content;  // empty: the filler
};

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, const std::vector<EvalTask>& tasks) : options_(options), tasks_(tasks) {}

  // Reads texts and results, and refuses what cannot be run before any model is opened.
  Status prepare();
  Status run();
  void print_header() const;
  void print_comparison() const;

 private:
  Status read_texts();
  void add_group(const EvalTask& task, const std::string& text, int64_t length);
  // The cells of the group under this plan that are not finished.
  std::vector<eval::Cell> missing(const Group& group, const std::string& label) const;
  Status read_reference();
  Status run_plan(const std::string& plan, const std::string& label);
  Status run_group(Engine& engine, const std::string& label, const Group& group);
  Status run_trials(Engine& engine, const Group& group, std::span<const eval::Cell> cells);
  Status run_ppl(Engine& engine, const Group& group, std::span<const eval::Cell> cells);
  Status run_logits(Engine& engine, const Group& group, std::span<const eval::Cell> cells);
  Status finish(const eval::Cell& figures, const eval::Cell& asked);

  eval::LogitsOptions logits_options(const Group& group) const;
  Result<const eval::Corpus*> corpus(const Engine& engine, const std::string& text);
  ProgressStyle style() const { return options_.json ? ProgressStyle::lines : progress_style(false); }

  const EvalOptions& options_;
  const std::vector<EvalTask>& tasks_;
  std::vector<std::string> labels_;  // of plans
  std::map<std::string, NamedText> texts_;
  std::map<std::string, eval::Corpus> corpora_;  // every plan reads the same tokens
  std::vector<Group> groups_;
  std::map<const Group*, eval::FinalLogits> references_;
  std::optional<eval::TrialRunner> runner_;  // of the engine that is open
  eval::Results results_;
};

// The label and the two callbacks of a cell that is being run.
struct Reporting {
  Reporting(const Group& group, ProgressStyle style)
      : reporter(group.task->name + " " + grouped(group.length()) + " " + group.cells.front().text, style) {}

  std::function<bool(const Progress&)> progress() {
    return [this](const Progress& p) {
      reporter.update(p.done, p.total, p.seconds);
      return !interrupted();
    };
  }

  ProgressReporter reporter;
};

Status Evaluation::read_texts() {
  std::set<std::string> names;
  texts_[std::string(eval::filler_name)] = {std::string(eval::filler_name), {}};
  for (const std::string& text : options_.texts) {
    if (text == eval::filler_name || texts_.count(text) > 0) continue;
    BOUGH_ASSIGN_OR_RETURN(std::string content, read_text(text));
    const std::string name = base_name(text);
    if (!names.insert(name).second) return {Code::invalid_argument, "two texts are called '" + name + "': results tell texts by that name"};
    texts_[text] = {name, std::move(content)};
  }
  return {};
}

void Evaluation::add_group(const EvalTask& task, const std::string& text, int64_t length) {
  const bool own = !task.text.empty();
  const NamedText& named = texts_.at(own ? std::string(eval::filler_name) : text);
  eval::Cell cell{.task = task.name, .text = own ? task.text : named.name, .length = length};
  cell.model = base_name(options_.model.model.empty() ? default_model_path() : options_.model.model);
  cell.kv = options_.model.kv;
  cell.seed = options_.seed;
  cell.chat = options_.chat;
  cell.rows = options_.rows;
  cell.depths = task.by_depth ? options_.depths : 1;
  cell.trials = task.kind == EvalTask::Kind::ppl ? 0 : options_.trials;
  if (!named.content.empty()) {
    char hex[32];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(checksum(std::as_bytes(std::span(named.content)))));
    cell.text_checksum = hex;
  }
  const bool haystack = task.kind == EvalTask::Kind::trials && cell.text != "lines" && cell.text != "words";
  if (haystack) {
    cell.one_haystack = options_.one_haystack || (length >= one_haystack_from && !options_.many_haystacks);
  }
  Group group{.task = &task, .text = own ? std::string(eval::filler_name) : text, .cells = {}};
  for (int band = 0; band < cell.depths; ++band) {
    cell.depth = eval::band_depth(band, cell.depths);
    group.cells.push_back(cell);
  }
  groups_.push_back(std::move(group));
}

Status Evaluation::prepare() {
  BOUGH_RETURN_IF_ERROR(read_texts());
  for (const std::string& plan : options_.plans) {
    BOUGH_ASSIGN_OR_RETURN(labels_.emplace_back(), plan_label(plan));
  }
  if (!options_.out.empty()) {
    BOUGH_ASSIGN_OR_RETURN(results_, eval::Results::open(machine_files(), options_.out));
  }
  for (const int64_t length : read_number_list(options_.lengths)) {
    for (const EvalTask& task : tasks_) {
      for (const std::string& text : task.text.empty() ? options_.texts : std::vector<std::string>{task.text})
        add_group(task, text, length);
    }
  }
  for (const Group& group : groups_) {
    for (const eval::Cell& cell : group.cells) BOUGH_RETURN_IF_ERROR(results_.check(cell));
  }
  return {};
}

std::vector<eval::Cell> Evaluation::missing(const Group& group, const std::string& label) const {
  std::vector<eval::Cell> cells;
  for (eval::Cell cell : group.cells) {
    cell.plan = label;
    if (results_.find(cell) == nullptr) cells.push_back(std::move(cell));
  }
  return cells;
}

Result<const eval::Corpus*> Evaluation::corpus(const Engine& engine, const std::string& text) {
  const auto found = corpora_.find(text);
  if (found != corpora_.end()) return &found->second;
  const NamedText& named = texts_.at(text);
  if (named.content.empty()) {
    BOUGH_ASSIGN_OR_RETURN(eval::Corpus filler, eval::filler_corpus(engine));
    return &corpora_.emplace(text, std::move(filler)).first->second;
  }
  BOUGH_ASSIGN_OR_RETURN(eval::Corpus read, eval::text_corpus(engine, named.name, named.content));
  log_info("the text '" + text + "' has " + grouped(static_cast<int64_t>(read.tokens.size())) + " tokens");
  return &corpora_.emplace(text, std::move(read)).first->second;
}

eval::LogitsOptions Evaluation::logits_options(const Group& group) const {
  return {.length = group.length(), .trials = options_.trials, .rows = options_.rows};
}

// Dense attention's logits for every group that still needs them, before the first plan is opened.
Status Evaluation::read_reference() {
  std::unique_ptr<Engine> dense;
  for (const Group& group : groups_) {
    if (group.task->kind != EvalTask::Kind::logits) continue;
    if (std::all_of(labels_.begin(), labels_.end(), [&](const std::string& label) { return missing(group, label).empty(); })) continue;
    if (dense == nullptr) {
      BOUGH_ASSIGN_OR_RETURN(dense, open_engine(options_.model, "dense"));
    }
    BOUGH_ASSIGN_OR_RETURN(const eval::Corpus* read, corpus(*dense, group.text));
    Reporting reporting(group, style());
    eval::LogitsOptions logits = logits_options(group);
    logits.progress = reporting.progress();
    BOUGH_ASSIGN_OR_RETURN(references_[&group], eval::final_logits(*dense, *read, logits));
  }
  return {};
}

Status Evaluation::finish(const eval::Cell& figures, const eval::Cell& asked) {
  eval::Cell cell = asked;
  cell.trials = figures.trials;
  cell.exact = figures.exact;
  cell.score = figures.score;
  cell.cross_entropy = figures.cross_entropy;
  cell.sources = figures.sources;
  cell.relative_error = figures.relative_error;
  cell.divergence = figures.divergence;
  cell.tokens = figures.tokens;
  cell.seconds = figures.seconds;
  if (options_.json) {
    print_line(eval::cell_json(cell));
  } else {
    std::fputs(eval::cell_table_row(cell).c_str(), stdout);
    std::fflush(stdout);
  }
  return results_.add(cell);
}

// From the deepest band to the shallowest, which shares most of what was read.
Status Evaluation::run_trials(Engine& engine, const Group& group, std::span<const eval::Cell> cells) {
  BOUGH_ASSIGN_OR_RETURN(const eval::Corpus* read, corpus(engine, group.text));
  if (!runner_) {
    BOUGH_ASSIGN_OR_RETURN(eval::TrialRunner runner, eval::TrialRunner::create(engine));
    runner_.emplace(std::move(runner));
  }
  for (auto cell = cells.rbegin(); cell != cells.rend(); ++cell) {
    const auto band = std::find_if(group.cells.begin(), group.cells.end(), [&](const eval::Cell& c) { return c.depth == cell->depth; });
    const eval::TrialSet set{.length = cell->length,
                             .trials = cell->trials,
                             .depths = cell->depths,
                             .band = static_cast<int>(band - group.cells.begin()),
                             .seed = cell->seed,
                             .one_haystack = cell->one_haystack};
    BOUGH_ASSIGN_OR_RETURN(const std::vector<eval::Prompt> prompts, group.task->prompts(engine, *read, set));
    Reporting reporting(group, style());
    eval::TrialOptions trials;
    trials.progress = reporting.progress();
    trials.on_result = [&](const eval::TrialResult& result) {
      reporting.reporter.clear();
      log_info("trial " + std::to_string(result.trial) + ": " + result.key + ", " + std::to_string(result.right) + " of " +
               std::to_string(result.wanted) + " right, source " + std::to_string(result.source_rank) +
               (result.answer.empty() ? "" : ", answer: " + result.answer));
    };
    BOUGH_ASSIGN_OR_RETURN(const eval::Cell figures, runner_->run(prompts, trials));
    reporting.reporter.clear();
    BOUGH_RETURN_IF_ERROR(finish(figures, *cell));
  }
  return {};
}

Status Evaluation::run_ppl(Engine& engine, const Group& group, std::span<const eval::Cell> cells) {
  BOUGH_ASSIGN_OR_RETURN(const eval::Corpus* read, corpus(engine, group.text));
  Reporting reporting(group, style());
  eval::PplOptions ppl{.length = group.length(), .depths = group.cells.front().depths, .rows = options_.rows};
  ppl.decoded = options_.decoded;
  ppl.progress = reporting.progress();
  BOUGH_ASSIGN_OR_RETURN(const std::vector<eval::Cell> figures, eval::run_ppl(engine, *read, ppl));
  reporting.reporter.clear();
  for (const eval::Cell& cell : cells) {
    const auto band = std::find_if(figures.begin(), figures.end(), [&](const eval::Cell& c) { return c.depth == cell.depth; });
    BOUGH_RETURN_IF_ERROR(finish(*band, cell));
  }
  return {};
}

Status Evaluation::run_logits(Engine& engine, const Group& group, std::span<const eval::Cell> cells) {
  BOUGH_ASSIGN_OR_RETURN(const eval::Corpus* read, corpus(engine, group.text));
  Reporting reporting(group, style());
  eval::LogitsOptions logits = logits_options(group);
  logits.progress = reporting.progress();
  BOUGH_ASSIGN_OR_RETURN(const eval::FinalLogits mine, eval::final_logits(engine, *read, logits));
  reporting.reporter.clear();
  BOUGH_ASSIGN_OR_RETURN(const eval::Cell figures, eval::logits_cell(references_.at(&group), mine, engine.info().vocab, logits));
  return finish(figures, cells.front());
}

Status Evaluation::run_group(Engine& engine, const std::string& label, const Group& group) {
  const std::vector<eval::Cell> cells = missing(group, label);
  if (cells.empty()) {
    log_info(group.task->name + " " + label + " " + grouped(group.length()) + " " + group.cells.front().text + " is finished already");
    return {};
  }
  switch (group.task->kind) {
    case EvalTask::Kind::trials: return run_trials(engine, group, cells);
    case EvalTask::Kind::ppl: return run_ppl(engine, group, cells);
    case EvalTask::Kind::logits: return run_logits(engine, group, cells);
  }
  return {};
}

Status Evaluation::run_plan(const std::string& plan, const std::string& label) {
  int64_t longest = 0;
  for (const Group& group : groups_) longest = std::max(longest, missing(group, label).empty() ? 0 : group.length());
  if (longest == 0) {
    log_info("all cells of " + label + " are finished already");
    return {};
  }
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(options_.model, plan));
  BOUGH_RETURN_IF_ERROR(check_memory(engine->info(), engine->kv_type(), longest));
  Status status;
  for (const Group& group : groups_) {
    status = run_group(*engine, label, group);
    if (!status.ok()) break;
  }
  runner_.reset();  // before its engine
  return status;
}

Status Evaluation::run() {
  BOUGH_RETURN_IF_ERROR(read_reference());
  for (size_t i = 0; i < labels_.size(); ++i) BOUGH_RETURN_IF_ERROR(run_plan(options_.plans[i], labels_[i]));
  return {};
}

void Evaluation::print_header() const {
  if (options_.json) return;
  const eval::Cell& first = groups_.front().cells.front();
  std::printf("model %s, KV type %s, seed %llu\n", first.model.c_str(), first.kv.c_str(), static_cast<unsigned long long>(first.seed));
  std::fputs(eval::cell_table_header().c_str(), stdout);
  std::fflush(stdout);
}

// Cells that an earlier run has finished included.
void Evaluation::print_comparison() const {
  if (options_.json) return;
  std::vector<eval::Cell> cells;
  for (const Group& group : groups_) {
    for (const std::string& label : labels_) {
      for (eval::Cell cell : group.cells) {
        cell.plan = label;
        if (const eval::Cell* found = results_.find(cell); found != nullptr) cells.push_back(*found);
      }
    }
  }
  std::printf("\n%s", eval::comparison_table(cells).c_str());
  std::fflush(stdout);
}

}  // namespace

int evaluate(EvalOptions options, const std::vector<EvalTask>& tasks) {
  start_log(options.model.verbose);
  if (options.plans.empty()) options.plans = {"default"};
  if (options.texts.empty()) options.texts = {std::string(eval::filler_name)};
  if (options.one_haystack && options.many_haystacks) return fail_usage("--one-haystack and --many-haystacks exclude each other");
  for (const std::string& plan : options.plans) {
    if (const Result<AttentionPlan> parsed = parse_plan(plan); !parsed.ok()) return fail_usage(parsed.status().message());
  }
  Evaluation evaluation(options, tasks);
  if (const Status status = evaluation.prepare(); !status.ok()) return fail(status);
  catch_interrupt();
  evaluation.print_header();
  const Status status = evaluation.run();
  if (status.code() == Code::cancelled) return fail(Status(Code::cancelled, "interrupted; finished cells are kept"));
  if (!status.ok()) return fail(status);
  evaluation.print_comparison();
  return exit_ok;
}

}  // namespace bough::cli
