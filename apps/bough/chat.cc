// bough chat [FILE...]: a conversation, about long texts if any are named.
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include <unistd.h>

#include "answer.h"
#include "base/check.h"
#include "chat_history.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "session_cache.h"

namespace bough::cli {
namespace {

struct ChatOptions {
  ModelOptions model;
  AnswerOptions answer;
  std::string plan = "default";
  std::vector<std::string> files;
  SessionOptions sessions;
  std::string system;
  std::string history;  // file to go on from
};

constexpr const char* kCommands =
    "/undo         forget the last question and its answer\n"
    "/edit TEXT    ask TEXT in place of the last question\n"
    "/history      show the conversation\n"
    "/reset        forget the conversation; texts that were read stay\n"
    "/save FILE    write the conversation to a file, for bough chat --continue FILE\n"
    "/quit         end; so does the end of input\n"
    "A line that starts with a blank is never a command. Ctrl-C stops an answer.\n";

class Chat {
 public:
  Chat(Conversation& conversation, const ChatOptions& options, GenerateOptions generate)
      : conversation_(conversation), options_(options), generate_(std::move(generate)) {
    if (!options.system.empty()) messages_.push_back({"system", options.system});
    fixed_ = messages_.size();
  }

  // Reads the texts that the conversation is about.
  Status read_files();
  Status load(const std::string& path);
  // Serves lines of stdin until their end or /quit. Returns the exit code.
  int run();

 private:
  // One line. False ends the conversation.
  bool serve(const std::string& line);
  void command(const std::string& name, const std::string& argument);
  // Asks, and keeps question and answer; without an answer the conversation is as before.
  void ask(const std::string& question);
  Status read_prompt();
  // The whole conversation up to the next answer; the first `text_end_` tokens end with the texts.
  Result<std::vector<TokenId>> prompt_tokens();
  bool undo();
  void say(const std::string& sentence) const { std::fprintf(stderr, "bough: %s\n", sentence.c_str()); }

  Conversation& conversation_;
  const ChatOptions& options_;
  GenerateOptions generate_;
  std::vector<ChatMessage> messages_;
  size_t fixed_ = 0;           // messages that are no turns
  std::vector<TokenId> text_;  // of the files
  size_t text_end_ = 0;
  bool failed_ = false;
};

Result<std::vector<TokenId>> Chat::prompt_tokens() {
  const Engine& engine = *conversation_.engine;
  if (text_.empty()) return engine.chat_prompt(messages_);
  BOUGH_ASSIGN_OR_RETURN(SplitPrompt around, engine.chat_prompt_around_text(messages_));
  std::vector<TokenId> tokens = std::move(around.before);
  tokens.insert(tokens.end(), text_.begin(), text_.end());
  text_end_ = tokens.size();
  tokens.insert(tokens.end(), around.after.begin(), around.after.end());
  return tokens;
}

Status Chat::read_files() {
  if (options_.files.empty()) return {};
  BOUGH_ASSIGN_OR_RETURN(const Texts texts, read_texts(options_.files));
  BOUGH_ASSIGN_OR_RETURN(text_, tokens_of(*conversation_.engine, options_.sessions, texts.all, /*add_bos=*/false));
  messages_.push_back({"user", "?"});  // what stands before the texts does not depend on the question
  const Result<std::vector<TokenId>> tokens = prompt_tokens();
  messages_.pop_back();
  BOUGH_RETURN_IF_ERROR(tokens.status());
  const std::span<const TokenId> prompt = std::span(*tokens).first(text_end_);
  const Engine& engine = *conversation_.engine;
  BOUGH_RETURN_IF_ERROR(check_memory_of_kept(engine.info(), engine.kv_type(), static_cast<int64_t>(prompt.size())));
  BOUGH_RETURN_IF_ERROR(find_session(conversation_, options_.sessions, prompt, {texts.all, false, text_}));
  BOUGH_RETURN_IF_ERROR(
      check_memory(engine.info(), engine.kv_type(), unkept_tokens(conversation_, prompt) + options_.answer.generate.max_tokens));
  return read_tokens(conversation_, prompt.subspan(static_cast<size_t>(conversation_.session->length())), false, "reading");
}

Status Chat::load(const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<ChatMessage> turns, load_history(path));
  messages_.insert(messages_.end(), turns.begin(), turns.end());
  return {};
}

// Rolls the session back to what it has in common with the conversation and reads the rest.
Status Chat::read_prompt() {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, prompt_tokens());
  Session& session = *conversation_.session;
  const std::span<const TokenId> held = session.tokens();
  const size_t most = std::min(held.size(), prompt.size() - 1);  // the last token is read anew for its logits
  const auto differs = std::mismatch(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(most), prompt.begin()).first;
  auto common = static_cast<size_t>(differs - held.begin());
  BOUGH_RETURN_IF_ERROR(check_memory(conversation_.engine->info(), conversation_.engine->kv_type(),
                                     static_cast<int64_t>(prompt.size() - common) + options_.answer.generate.max_tokens));
  BOUGH_RETURN_IF_ERROR(session.rollback(static_cast<int64_t>(common)));
  if (common < text_end_) {
    BOUGH_RETURN_IF_ERROR(read_tokens(conversation_, std::span(prompt).subspan(common, text_end_ - common), false, "reading"));
    common = text_end_;
  }
  return read_tokens(conversation_, std::span(prompt).subspan(common), true, "question");
}

void Chat::ask(const std::string& question) {
  catch_interrupt();
  conversation_.read_tokens = 0;
  conversation_.read_seconds = 0;
  messages_.push_back({"user", question});
  const Status read = read_prompt();
  Result<Generation> answer = read.ok() ? print_answer(conversation_, generate_) : Result<Generation>(read);
  if (!answer.ok()) {
    say(answer.status().message());
    failed_ = failed_ || answer.status().code() != Code::cancelled;
    messages_.pop_back();
    return;
  }
  log_info("read " + grouped(conversation_.read_tokens) + " tokens, answered " + grouped(static_cast<int64_t>(answer->tokens.size())));
  messages_.push_back({"assistant", std::move(answer->text)});
}

bool Chat::undo() {
  if (messages_.size() < fixed_ + 2) return false;
  messages_.resize(messages_.size() - 2);
  return true;
}

void Chat::command(const std::string& name, const std::string& argument) {
  if (name == "/undo") {
    if (!undo()) say("there is no question to undo");
  } else if (name == "/edit") {
    if (argument.empty()) return say("/edit needs the new question");
    if (!undo()) return say("there is no question to edit");
    ask(argument);
  } else if (name == "/history") {
    for (const ChatMessage& m : messages_) std::printf("%s: %s\n", m.role.c_str(), m.content.c_str());
    std::fflush(stdout);
  } else if (name == "/reset") {
    messages_.resize(fixed_);
  } else if (name == "/save") {
    if (argument.empty()) return say("/save needs a file");
    const Status saved = save_history(argument, std::span(messages_).subspan(fixed_));
    if (!saved.ok()) say(saved.message());
  } else if (name == "/help") {
    std::fputs(kCommands, stderr);
  } else {
    say("there is no command '" + name + "'; /help lists them");
  }
}

bool Chat::serve(const std::string& line) {
  if (line.find_first_not_of(" \t\r") == std::string::npos) return true;
  if (const Status checked = check_text(line, "the line"); !checked.ok()) {
    say(checked.message());
    return true;
  }
  if (line.front() != '/') {
    ask(line);
    return true;
  }
  const size_t blank = line.find(' ');
  const std::string name = line.substr(0, blank);
  const size_t word = blank == std::string::npos ? blank : line.find_first_not_of(' ', blank);
  if (name == "/quit") return false;
  command(name, word == std::string::npos ? std::string() : line.substr(word));
  return true;
}

int Chat::run() {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  while (true) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line) || !serve(line)) break;
    if (std::ferror(stdout) != 0) return fail(Status(Code::io_error, "standard output no longer takes the answer"));
  }
  return failed_ ? exit_failed : exit_ok;
}

int chat(const ChatOptions& options) {
  start_log(options.model.verbose);
  const Result<AttentionPlan> plan = parse_plan(options.plan);
  if (!plan.ok()) return fail_usage(plan.status().message());
  if (const Status checked = check_text(options.system, "the system message"); !checked.ok()) return fail_usage(checked.message());
  for (const std::string& file : options.files) {
    if (file == "-") return fail_usage("chat reads questions from standard input, so no text can come from there");
  }
  Result<Conversation> conversation = open_conversation(options.model, options.plan, false);
  if (!conversation.ok()) return fail(conversation.status());
  const Result<GenerateOptions> generate = generate_options(*conversation->engine, options.answer);
  if (!generate.ok()) return fail_options(generate.status());
  Chat chat(*conversation, options, *generate);
  if (!options.history.empty()) {
    if (const Status loaded = chat.load(options.history); !loaded.ok()) return fail(loaded);
  }
  if (const Status read = chat.read_files(); !read.ok()) return fail(read);
  return chat.run();
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "Converse with the model, about long texts if any are named");
  command->add_option("FILE", options->files, "Text files that the conversation is about")->option_text("...");
  add_model_options(*command, options->model);
  add_plan_option(*command, options->plan);
  add_answer_options(*command, options->answer);
  add_session_options(*command, options->sessions);
  add_memory_option(*command, options->model);
  command->add_option("--system", options->system, "System message")->type_name("TEXT");
  command->add_option("--continue", options->history, "Go on with a conversation that /save has written")->type_name("FILE");
  command->footer(std::string("Example:\n"
                              "  bough chat book.txt\n"
                              "\n"
                              "Each line is a question, or a command:\n") +
                  kCommands);
  command->callback([options, &action] { action = [options] { return chat(*options); }; });
}

}  // namespace bough::cli
