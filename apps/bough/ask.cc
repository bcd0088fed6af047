// bough ask FILE... "question": reads long texts and answers from them.
#include <memory>
#include <utility>

#include "answer.h"
#include "base/check.h"
#include "format.h"
#include "input.h"
#include "log.h"
#include "session_cache.h"

namespace bough::cli {
namespace {

constexpr char mark = '\x1f';

struct AskOptions {
  ModelOptions model;
  AnswerOptions answer;
  std::string plan = "default";
  std::vector<std::string> words;  // files, then the question
  SessionOptions sessions;
  bool raw = false;
  bool no_sources = false;
  bool json = false;
};

struct AskPrompt {
  std::vector<TokenId> text;      // first append
  std::vector<TokenId> question;  // second append, from which the answer is sampled
  int64_t before = 0;             // tokens of `text` that stand before the files' text
};

Result<AskPrompt> chat_prompt(Engine& engine, const SessionOptions& sessions, const std::string& text, const std::string& question) {
  Result<SplitPrompt> around = engine.chat_prompt_around_text(question);
  if (!around.ok()) {
    return Status(around.status().code(), around.status().message() + "; --raw asks without a chat template");
  }
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> body, tokens_of(engine, sessions, text, /*add_bos=*/false));
  AskPrompt prompt{std::move(around->before), std::move(around->after)};
  prompt.before = static_cast<int64_t>(prompt.text.size());
  prompt.text.insert(prompt.text.end(), body.begin(), body.end());
  return prompt;
}

Result<AskPrompt> raw_prompt(Engine& engine, const SessionOptions& sessions, const std::string& text, const std::string& question) {
  AskPrompt prompt;
  BOUGH_ASSIGN_OR_RETURN(prompt.text, tokens_of(engine, sessions, text, /*add_bos=*/true));
  BOUGH_ASSIGN_OR_RETURN(prompt.question, engine.tokenize(question, /*add_bos=*/false));
  return prompt;
}

Status read_prompt(Conversation& conversation, const AskOptions& options, const Texts& texts, const std::string& question) {
  Engine& engine = *conversation.engine;
  BOUGH_ASSIGN_OR_RETURN(const AskPrompt prompt, options.raw ? raw_prompt(engine, options.sessions, texts.all, question)
                                                             : chat_prompt(engine, options.sessions, texts.all, question));
  const auto question_tokens = static_cast<int64_t>(prompt.question.size());
  const int64_t tokens = static_cast<int64_t>(prompt.text.size()) + question_tokens;
  BOUGH_RETURN_IF_ERROR(check_memory_of_kept(engine.info(), engine.kv_type(), tokens));
  if (!options.no_sources) {
    conversation.sources = ReadText{&texts, prompt.before, static_cast<int64_t>(prompt.text.size()) - prompt.before};
  }
  log_info("reading " + grouped(tokens) + " tokens");
  const TokenizedText source{texts.all, options.raw, std::span(prompt.text).subspan(static_cast<size_t>(prompt.before))};
  BOUGH_RETURN_IF_ERROR(find_session(conversation, options.sessions, prompt.text, source));
  BOUGH_RETURN_IF_ERROR(check_memory(engine.info(), engine.kv_type(),
                                     unkept_tokens(conversation, prompt.text) + question_tokens + options.answer.generate.max_tokens));
  const auto held = static_cast<size_t>(conversation.reused_tokens);
  BOUGH_RETURN_IF_ERROR(read_tokens(conversation, std::span(prompt.text).subspan(held), false, "reading"));
  return read_tokens(conversation, prompt.question, true, "question");
}

void unmark(std::string& word) {
  if (word.starts_with(mark)) word.erase(0, 1);
}

int ask(AskOptions options) {
  for (std::string& word : options.words) unmark(word);
  for (std::string& stop : options.answer.generate.stop) unmark(stop);
  unmark(options.plan);
  unmark(options.model.model);
  start_log(options.model.verbose);
  if (options.words.size() < 2) return fail_usage("ask needs at least one FILE and then the question");
  const std::string& question = options.words.back();
  if (question.empty()) return fail_usage("the question is empty");
  if (const Status checked = check_text(question, "the question"); !checked.ok()) return fail_usage(checked.message());
  const Result<AttentionPlan> plan = parse_plan(options.plan);
  if (!plan.ok()) return fail_usage(plan.status().message());
  const Result<Texts> texts = read_texts({options.words.begin(), options.words.end() - 1});
  if (!texts.ok()) return fail(texts.status());

  Result<Conversation> conversation = open_conversation(options.model, options.plan, options.json);
  if (!conversation.ok()) return fail(conversation.status());
  const Result<GenerateOptions> generate = generate_options(*conversation->engine, options.answer);
  if (!generate.ok()) return fail_options(generate.status());
  if (const Status read = read_prompt(*conversation, options, *texts, question); !read.ok()) return fail(read);
  return stream_answer(*conversation, *generate);
}

// The parser knows one list of words; the help names what they are.
class AskHelp : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string name) const override { return "Usage: " + name + " [OPTIONS] FILE... QUESTION\n"; }
};

}  // namespace

std::string marked_word(const std::string& word) {
  const bool bracketed = word.starts_with("[") && word.ends_with("]");
  return bracketed ? mark + word : word;
}

void add_ask(CLI::App& app, Action& action) {
  auto options = std::make_shared<AskOptions>();
  CLI::App* command = app.add_subcommand("ask", "Read long texts and answer a question about them");
  command->formatter(std::make_shared<AskHelp>());
  command->add_option("FILE...", options->words, "Text files ('-' is standard input), then the question")->option_text("QUESTION");
  add_model_options(*command, options->model);
  add_plan_option(*command, options->plan);
  add_answer_options(*command, options->answer);
  add_session_options(*command, options->sessions);
  add_memory_option(*command, options->model);
  command->add_flag("--raw", options->raw, "No chat template: the text, then the question, exactly as given, are continued");
  command->add_flag("--no-sources", options->no_sources, "Do not show the passages that the answer drew on");
  command->add_flag("--json", options->json, "Progress, text and summary as one JSON object a line on stdout");
  command->footer(
      "Example:\n"
      "  bough ask book.txt \"Who finds the letter?\"\n"
      "\n"
      "With several files, a line that names each stands before it. The answer goes to stdout, progress, the passages that\n"
      "it drew on and a summary to stderr. Ctrl-C stops the reading or the answer. What was read is kept, so that the next\n"
      "question on the same text starts at once; see bough sessions --help.");
  command->callback([options, &action] { action = [options] { return ask(*options); }; });
}

}  // namespace bough::cli
