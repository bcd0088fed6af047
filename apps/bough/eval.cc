// bough eval: quality figures that anyone can repeat. Which tasks there are and what they are asked for.
#include <memory>
#include <utility>

#include "base/check.h"
#include "cli.h"
#include "eval/keys.h"
#include "eval/passkey.h"
#include "eval/ruler.h"
#include "eval_mass.h"
#include "eval_run.h"
#include "format.h"

namespace bough::cli {
namespace {

struct EvalCommand {
  EvalOptions options;
  std::string keys = "32";    // of `eval keys`
  std::string tasks = "all";  // of `eval ruler`
};

using Command = std::shared_ptr<EvalCommand>;

void add_repeatable(CLI::App& app, const char* name, std::vector<std::string>& values, const char* help, const char* type) {
  app.add_option(name, values, help)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->type_name(type);
}

void add_common(CLI::App& app, EvalOptions& options) {
  app.add_option("--lengths", options.lengths, "Tokens of each prompt, comma-separated")
      ->check(number_list(1, max_length))
      ->type_name("N,N...")
      ->capture_default_str();
  add_repeatable(app, "--text", options.texts, "A text file, or filler (the default); may be given several times", "FILE|filler");
  add_repeatable(app, "-p,--plan", options.plans, "Attention plan, as for ask; may be given several times", "NAME|JSON|FILE");
  app.add_option("--out", options.out, "Append each cell to this file as a line of JSON; cells already there are not run again")
      ->type_name("FILE");
  app.add_flag("--json", options.json, "One JSON object a cell on stdout, and no tables");
  add_model_options(app, options.model);
}

template <typename Number>
void add_count(CLI::App& app, const char* name, Number& value, int64_t lo, int64_t hi, const char* help) {
  app.add_option(name, value, help)->check(whole_number(lo, hi))->type_name("N")->capture_default_str();
}

void add_depths(CLI::App& app, EvalOptions& options) {
  add_count(app, "--depths", options.depths, 1, 1000, "Bands that the text is divided into; each has cells of its own");
}

void add_trials(CLI::App& app, EvalOptions& options, const char* seed_help) {
  add_count(app, "--trials", options.trials, 1, 10'000, "Prompts a cell, what is asked for spread evenly over its band");
  add_depths(app, options);
  add_count(app, "--seed", options.seed, 0, INT64_MAX, seed_help);
  app.add_flag("--one-haystack", options.one_haystack,
               "All trials of a length in the same stretch of text (always so from 65,536 tokens on)");
  app.add_flag("--many-haystacks", options.many_haystacks, "Another stretch of text for each trial at every length");
}

void add_passkey(CLI::App& eval, Action& action) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App* app = eval.add_subcommand("passkey", "Find five digits hidden in a long text");
  add_trials(*app, command->options, "Seed of the keys");
  add_common(*app, command->options);
  app->footer(
      "Example:\n"
      "  bough eval passkey --lengths 8192,32768 --depths 10 --trials 2 --text filler --text book.txt --out cells.jsonl");
  app->callback([command, &action] {
    action = [command] { return evaluate(command->options, {{.name = "passkey", .prompts = eval::passkey_prompts}}); };
  });
}

int evaluate_keys(const EvalCommand& command) {
  std::vector<EvalTask> tasks;
  for (const int64_t keys : read_number_list(command.keys)) {
    tasks.push_back({.name = "keys-" + std::to_string(keys),
                     .prompts = [keys](const Engine& engine, const eval::Corpus& corpus, const eval::TrialSet& set) {
                       return eval::keys_prompts(engine, corpus, set, static_cast<int>(keys));
                     }});
  }
  return evaluate(command.options, tasks);
}

void add_keys(CLI::App& eval, Action& action) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App* app = eval.add_subcommand("keys", "Find the pass key of one name among many");
  app->add_option("--keys", command->keys, "Named keys in a text, comma-separated; at most 128")
      ->check(number_list(1, 128))
      ->type_name("N,N...")
      ->capture_default_str();
  add_trials(*app, command->options, "Seed of names and keys");
  add_common(*app, command->options);
  app->footer(
      "Example:\n"
      "  bough eval keys --keys 8,32,128 --lengths 8192,32768 --trials 16 --text book.txt --plan default --plan dense");
  app->callback([command, &action] { action = [command] { return evaluate_keys(*command); }; });
}

Result<std::vector<eval::RulerTask>> read_ruler_tasks(const std::string& list) {
  if (list == "all") return std::vector<eval::RulerTask>(eval::ruler_tasks().begin(), eval::ruler_tasks().end());
  std::vector<eval::RulerTask> tasks;
  for (size_t from = 0; from <= list.size();) {
    const size_t comma = std::min(list.find(',', from), list.size());
    BOUGH_ASSIGN_OR_RETURN(const eval::RulerTask task, eval::find_ruler_task(std::string_view(list).substr(from, comma - from)));
    tasks.push_back(task);
    from = comma + 1;
  }
  return tasks;
}

int evaluate_ruler(const EvalCommand& command) {
  const Result<std::vector<eval::RulerTask>> chosen = read_ruler_tasks(command.tasks);
  if (!chosen.ok()) return fail_usage(chosen.status().message());
  std::vector<EvalTask> tasks;
  for (const eval::RulerTask& task : *chosen) {
    tasks.push_back(
        {.name = "ruler-" + std::string(task.name),
         .text = eval::ruler_text_name(task.text),
         .by_depth = task.by_depth,
         .prompts = [task, chat = command.options.chat](const Engine& engine, const eval::Corpus& corpus, const eval::TrialSet& set) {
           return eval::ruler_prompts(engine, task, corpus, set, chat);
         }});
  }
  return evaluate(command.options, tasks);
}

void add_ruler(CLI::App& eval, Action& action) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App* app = eval.add_subcommand("ruler", "The eleven synthetic tasks of RULER");
  std::vector<std::string> names;
  for (const eval::RulerTask& task : eval::ruler_tasks()) names.emplace_back(task.name);
  app->add_option("--tasks", command->tasks, "Comma-separated: all, or some of " + joined(names, ", "))
      ->type_name("NAME,NAME...")
      ->capture_default_str();
  app->add_flag("--chat", command->options.chat, "Put each prompt into the model's chat template");
  add_trials(*app, command->options, "Seed of keys, values, words and places");
  add_common(*app, command->options);
  app->footer(
      "Example:\n"
      "  bough eval ruler --lengths 4096,8192 --trials 20 --text book.txt --plan default --plan dense --out ruler.jsonl");
  app->callback([command, &action] { action = [command] { return evaluate_ruler(*command); }; });
}

void add_ppl(CLI::App& eval, Action& action) {
  auto command = std::make_shared<EvalCommand>();
  command->options.rows = 512;
  CLI::App* app = eval.add_subcommand("ppl", "Perplexity of long texts, by depth");
  add_depths(*app, command->options);
  add_count(*app, "--rows", command->options.rows, 1, 65'536, "Last tokens of each band that are scored");
  app->add_flag("--decoded", command->options.decoded,
                "Feed these tokens one by one, as an answer is; the task is then called ppl-decoded");
  add_common(*app, command->options);
  app->footer(
      "Example:\n"
      "  bough eval ppl --lengths 8192,32768 --depths 8 --text book.txt --plan default --plan dense");
  app->callback([command, &action] {
    action = [command] {
      return evaluate(command->options,
                      {{.name = command->options.decoded ? "ppl-decoded" : "ppl", .kind = EvalTask::Kind::ppl, .prompts = {}}});
    };
  });
}

void add_logits(CLI::App& eval, Action& action) {
  auto command = std::make_shared<EvalCommand>();
  command->options.rows = 16;
  command->options.trials = 4;
  command->options.lengths = "4096,8192";
  CLI::App* app = eval.add_subcommand("logits", "Error of the final logits against dense attention, inside the trained context");
  add_count(*app, "--trials", command->options.trials, 1, 1000, "Texts a cell");
  add_count(*app, "--rows", command->options.rows, 1, 4096, "Last rows of each text that are compared");
  add_common(*app, command->options);
  app->footer(
      "Example:\n"
      "  bough eval logits --lengths 4096,8192 --text book.txt --plan default --plan 3k");
  app->callback([command, &action] {
    action = [command] {
      return evaluate(command->options, {{.name = "logits", .kind = EvalTask::Kind::logits, .by_depth = false, .prompts = {}}});
    };
  });
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("eval", "Measure quality: passkey, keys, ruler, ppl, logits, mass");
  command->require_subcommand(1);
  add_passkey(*command, action);
  add_keys(*command, action);
  add_ruler(*command, action);
  add_ppl(*command, action);
  add_logits(*command, action);
  add_eval_mass(*command, action);
  command->footer(
      "Example:\n"
      "  bough eval passkey --lengths 8192 --text filler\n"
      "\n"
      "Each task explains itself: bough eval passkey --help");
}

}  // namespace bough::cli
