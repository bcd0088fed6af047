// bough tokenize: the model's tokens of a text.
#include <algorithm>
#include <cstdio>
#include <memory>

#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "cli.h"
#include "format.h"
#include "input.h"
#include "log.h"
#include "text/tokenizer.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TokenizeOptions {
  ModelOptions model;
  std::string text;
  std::string file;
  bool count = false;
  int64_t head = 0;
  bool bos = false;
  bool special = false;
  bool json = false;
};

// Control characters and partial characters as escapes, so that a piece keeps to its line.
std::string visible(const std::string& piece) { return Json(piece).dump(-1, ' ', false, Json::error_handler_t::replace); }

void print_text(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_tokens(const Tokenizer& tokenizer, std::span<const TokenId> tokens, bool json) {
  std::string out;
  for (const TokenId token : tokens) {
    const Result<std::string> piece = tokenizer.piece(token, /*special=*/true);
    const std::string text = visible(piece.ok() ? *piece : std::string());
    if (json) {
      out.append(R"({"id":)").append(std::to_string(token)).append(R"(,"piece":)").append(text).append("}\n");
    } else {
      const std::string id = std::to_string(token);
      out.append(id.size() < 7 ? 7 - id.size() : 0, ' ').append(id).append("  ").append(text).append("\n");
    }
    if (out.size() > (1 << 20)) {
      print_text(out);
      out.clear();
    }
  }
  print_text(out);
}

Status print_result(const Tokenizer& tokenizer, std::span<const TokenId> tokens, const TokenizeOptions& options) {
  if (options.count) {
    const std::string number = std::to_string(tokens.size());
    print_line(options.json ? R"({"tokens":)" + number + "}" : number);
    return Status();
  }
  if (options.head == 0) {
    print_tokens(tokenizer, tokens, options.json);
    return Status();
  }
  const auto first = tokens.first(static_cast<size_t>(std::min<int64_t>(options.head, static_cast<int64_t>(tokens.size()))));
  BOUGH_ASSIGN_OR_RETURN(const std::string text, tokenizer.detokenize(first, options.special));
  if (options.json) {
    print_line(Json({{"tokens", first.size()}, {"text", text}}).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(text);
  }
  return Status();
}

// Only the vocabulary is needed, and its reader wants a file that was checked.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const ModelOptions& options) {
  BOUGH_ASSIGN_OR_RETURN(const std::string model, find_model(options));
  BOUGH_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(model));
  log_info("model " + model + ": " + info.name + ", " + grouped(info.vocab) + " tokens in its vocabulary");
  return Tokenizer::open(model);
}

int tokenize(const TokenizeOptions& options, bool has_text) {
  start_log(options.model.verbose);
  if (has_text && !options.file.empty()) return fail_usage("tokenize takes a text or -f FILE, not both");
  if (!has_text && options.file.empty() && isatty(STDIN_FILENO) != 0)
    return fail_usage("tokenize needs a text, -f FILE, or standard input");
  if (const Status checked = check_text(options.text, "the text"); !checked.ok()) return fail_usage(checked.message());
  if (has_text && access(options.text.c_str(), R_OK) == 0) {
    std::fprintf(stderr, "bough: the text '%s' is also the name of a file; -f reads the file\n", options.text.c_str());
  }
  const Result<std::string> text = has_text ? Result<std::string>(options.text) : read_text(options.file.empty() ? "-" : options.file);
  if (!text.ok()) return fail(text.status());
  const Result<std::unique_ptr<Tokenizer>> tokenizer = open_tokenizer(options.model);
  if (!tokenizer.ok()) return fail(tokenizer.status());
  const Result<std::vector<TokenId>> tokens = (*tokenizer)->tokenize(*text, {options.bos, options.special});
  if (!tokens.ok()) return fail(tokens.status());
  const Status printed = print_result(**tokenizer, *tokens, options);
  if (!printed.ok()) return fail(printed);
  if (std::fflush(stdout) != 0) return fail(Status(Code::io_error, "standard output does not take the tokens"));
  return exit_ok;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "Show or count the tokens of a text");
  CLI::Option* text = command->add_option("TEXT", options->text, "The text itself; without it -f FILE or standard input")->option_text(" ");
  command->add_option("-f,--file", options->file, "Take the text from a file ('-' is standard input)")->type_name("FILE");
  command->add_flag("--count", options->count, "Print the number of tokens only");
  command->add_option("--head", options->head, "Print the text of the first N tokens")->check(whole_number(1, max_length))->type_name("N");
  command->add_flag("--bos", options->bos, "With the model's start token, if it wants one");
  command->add_flag("--special", options->special, "Recognise control tokens written in the text");
  command->add_flag("--json", options->json, "One JSON object a line");
  add_model_option(*command, options->model);
  command->footer(
      "Examples:\n"
      "  bough tokenize \"The sky is blue.\"\n"
      "  bough tokenize --count -f book.txt\n"
      "  bough tokenize --head 8192 -f book.txt > start.txt");
  command->callback([options, text, &action] {
    const bool has_text = text->count() > 0;
    action = [options, has_text] { return tokenize(*options, has_text); };
  });
}

}  // namespace bough::cli
