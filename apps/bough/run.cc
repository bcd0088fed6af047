// bough run "prompt": continues a text as it stands.
#include <memory>

#include <unistd.h>

#include "answer.h"
#include "base/check.h"
#include "input.h"
#include "log.h"

namespace bough::cli {
namespace {

struct RunOptions {
  ModelOptions model;
  AnswerOptions answer;
  std::string plan = "default";
  std::string prompt;
  std::string file;
  bool raw = false;
  bool json = false;
};

Status read_prompt(Conversation& conversation, const RunOptions& options, const std::string& prompt) {
  const Engine& engine = *conversation.engine;
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, engine.tokenize(prompt));
  BOUGH_RETURN_IF_ERROR(
      check_memory(engine.info(), engine.kv_type(), static_cast<int64_t>(tokens.size()) + options.answer.generate.max_tokens));
  return read_tokens(conversation, tokens, true, "reading");
}

int run(const RunOptions& options, bool has_prompt) {
  start_log(options.model.verbose);
  if (has_prompt && !options.file.empty()) return fail_usage("run takes a prompt or -f FILE, not both");
  if (!has_prompt && options.file.empty() && isatty(STDIN_FILENO) != 0)
    return fail_usage("run needs a prompt, -f FILE, or text on standard input");
  if (has_prompt && options.prompt.empty()) return fail_usage("the prompt is empty");
  if (const Status checked = check_text(options.prompt, "the prompt"); !checked.ok()) return fail_usage(checked.message());
  const Result<AttentionPlan> plan = parse_plan(options.plan);
  if (!plan.ok()) return fail_usage(plan.status().message());
  const Result<std::string> prompt =
      has_prompt ? Result<std::string>(options.prompt) : read_text(options.file.empty() ? "-" : options.file);
  if (!prompt.ok()) return fail(prompt.status());

  Result<Conversation> conversation = open_conversation(options.model, options.plan, options.json);
  if (!conversation.ok()) return fail(conversation.status());
  const Result<GenerateOptions> generate = generate_options(*conversation->engine, options.answer);
  if (!generate.ok()) return fail_options(generate.status());
  if (const Status read = read_prompt(*conversation, options, *prompt); !read.ok()) return fail(read);
  return stream_answer(*conversation, *generate);
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Continue a prompt as it stands, without a chat template");
  CLI::Option* prompt =
      command->add_option("PROMPT", options->prompt, "Text to continue; without it -f FILE or standard input")->option_text(" ");
  command->add_option("-f,--file", options->file, "Take the prompt from a file ('-' is standard input)")->type_name("FILE");
  add_model_options(*command, options->model);
  add_plan_option(*command, options->plan);
  add_answer_options(*command, options->answer);
  command->add_flag("--raw", options->raw, "Changes nothing: run is always raw");
  command->add_flag("--json", options->json, "Progress, text and summary as one JSON object a line on stdout");
  command->footer(
      "Example:\n"
      "  bough run -n 40 \"The three largest cities of France are\"");
  command->callback([options, prompt, &action] {
    const bool has_prompt = prompt->count() > 0;
    action = [options, has_prompt] { return run(*options, has_prompt); };
  });
}

}  // namespace bough::cli
