// The program `bough`: parses the command line and runs one command.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <tuple>
#include <utility>

#include "cli.h"
#include "format.h"

namespace bough::cli {

int fail(const Status& status) {
  std::fprintf(stderr, "bough: %s\n", status.message().c_str());
  return status.code() == Code::cancelled ? exit_interrupted : exit_failed;
}

int fail_usage(const std::string& sentence) {
  std::fprintf(stderr, "bough: %s\n", sentence.c_str());
  return exit_usage;
}

int fail_options(const Status& status) { return status.code() == Code::invalid_argument ? fail_usage(status.message()) : fail(status); }

void print_line(std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
  return names;
}

// Empty, or a sentence when `word` stands where a command of `app` is meant and is none.
std::string unknown_command(const CLI::App& app, const std::string& word, const char* kind) {
  const std::vector<std::string> names = command_names(app);
  if (word.starts_with("-") || std::find(names.begin(), names.end(), word) != names.end()) return {};
  return "there is no " + std::string(kind) + " '" + word + "'; known are " + joined(names, ", ");
}

// The parser's complaint as one sentence on one line.
int fail_parse(const CLI::App& app, const CLI::ParseError& error) {
  std::string sentence = error.what();
  for (char& c : sentence) c = c == '\n' ? ' ' : c;
  if (sentence.starts_with("The ") || sentence.starts_with("A ")) sentence.front() = static_cast<char>(sentence.front() + ('a' - 'A'));
  std::string command = "bough";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  return fail_usage(sentence + " (see " + command + " --help)");
}

int run_program(int argc, char** argv) {
  CLI::App app{"Bough lets a pretrained transformer read and use contexts of millions of tokens.", "bough"};
  app.set_version_flag("--version", "bough 0.1.0");
  app.footer(
      "Example:\n"
      "  bough ask book.txt \"Who finds the letter?\"\n"
      "\n"
      "Each command explains itself: bough ask --help");
  app.require_subcommand(0, 1);
  Action action;
  add_ask(app, action);
  add_chat(app, action);
  add_run(app, action);
  add_inspect(app, action);
  add_tokenize(app, action);
  add_bench(app, action);
  add_eval(app, action);
  add_plot(app, action);
  add_sessions(app, action);
  if (argc < 2) {
    std::fputs(app.help().c_str(), stderr);
    return exit_usage;
  }
  const std::string first = argv[1];
  if (const std::string wrong = unknown_command(app, first, "command"); !wrong.empty()) return fail_usage(wrong);
  for (const auto& [command, kind, choices] :
       {std::tuple("eval", "task", "passkey, keys, ruler, ppl, logits or mass"), std::tuple("sessions", "action", "list or rm")}) {
    if (first != command) continue;
    const std::string wrong = argc < 3 ? first + " needs " + (kind[0] == 'a' ? "an " : "a ") + kind + ": " + choices
                                       : unknown_command(*app.get_subcommand(first), argv[2], kind);
    if (!wrong.empty()) return fail_usage(wrong);
  }
  std::vector<std::string> words(argv + 1, argv + argc);
  if (first == "ask") std::transform(words.begin(), words.end(), words.begin(), marked_word);
  std::reverse(words.begin(), words.end());  // the parser takes them from the back
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // help and version
    return fail_parse(app, error);
  }
  return action ? action() : fail_usage("a command is needed: " + joined(command_names(app), ", "));
}

}  // namespace
}  // namespace bough::cli

int main(int argc, char** argv) {
  try {
    return bough::cli::run_program(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("bough: there is not enough memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bough: %s\n", error.what());
  }
  return bough::cli::exit_failed;
}
