// How an answer is made: options of `ask`, `run` and `chat`.
#include <charconv>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "cli.h"
#include "input.h"

namespace bough::cli {
namespace {

template <typename Number>
bool read_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

Result<LogitBias> read_bias(const std::string& text) {
  const std::string_view whole = text;
  const size_t equals = whole.find('=');
  LogitBias bias;
  const bool read = equals != std::string_view::npos && read_number(whole.substr(0, equals), bias.token) && bias.token >= 0 &&
                    read_number(whole.substr(equals + 1), bias.bias) && !std::isnan(bias.bias);
  if (!read) {
    return Status(Code::invalid_argument, "--logit-bias: '" + text + "' is not ID=VALUE, a token's number and -1000 to 1000 or -inf");
  }
  return bias;
}

CLI::Option* add_number(CLI::App& command, const char* name, float& value, double low, double high, const char* help) {
  return command.add_option(name, value, help)->check(number_between(low, high))->type_name("X")->capture_default_str();
}

void add_penalties(CLI::App& command, AnswerOptions& options) {
  add_number(command, "--repeat-penalty", options.generate.repeat_penalty, 0.1, 10,
             "Divides positive logits of tokens that came lately, multiplies negative ones; 1: none");
  add_number(command, "--presence-penalty", options.generate.presence_penalty, -100, 100,
             "Taken off the logits of tokens that came lately");
  add_number(command, "--frequency-penalty", options.generate.frequency_penalty, -100, 100, "The same, for each time that they came");
  command.add_option("--penalty-tokens", options.generate.penalty_tokens, "How many last tokens these look at, the prompt's included")
      ->check(whole_number(0, 65536))
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--logit-bias", options.logit_bias, "Added to a token's logit, -inf forbids it; may be given several times")
      ->type_name("ID=X")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_limits(CLI::App& command, AnswerOptions& options) {
  command.add_option("--stop", options.generate.stop, "The answer ends before this text; may be given several times")
      ->type_name("TEXT")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  CLI::Option* grammar =
      command.add_option("--grammar", options.grammar, "The answer follows the GBNF grammar in this file, from its rule `root`")
          ->type_name("FILE");
  command.add_option("--json-schema", options.json_schema, "The answer is JSON that fits this schema: an object, or a file that holds one")
      ->type_name("JSON|FILE")
      ->excludes(grammar);
  command
      .add_option("--logprobs", options.generate.logprobs, "Report each token's log-probability and those of the N likeliest, with --json")
      ->check(whole_number(0, 100))
      ->type_name("N");
}

}  // namespace

void add_answer_options(CLI::App& command, AnswerOptions& options) {
  command.add_option("-n,--max-tokens", options.generate.max_tokens, "Most tokens of the answer")
      ->check(whole_number(1, max_answer_tokens))
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--temperature,--temp", options.generate.temperature, "0 takes the likeliest token each time; up to 100")
      ->check(number_between(0, 100))
      ->type_name("X")
      ->capture_default_str();
  command.add_option("--top-k", options.generate.top_k, "Draw among the N likeliest tokens; 0: all")
      ->check(whole_number(0, std::numeric_limits<int32_t>::max()))
      ->type_name("N")
      ->capture_default_str();
  add_number(command, "--top-p", options.generate.top_p, 1e-6, 1, "Draw among the likeliest tokens whose probabilities add up to this");
  add_number(command, "--min-p", options.generate.min_p, 0, 1, "Draw among tokens at least this share as likely as the likeliest");
  command.add_option("--seed", options.generate.seed, "Seed of the sampling; the same seed gives the same answer")
      ->check(whole_number(0, INT64_MAX))
      ->type_name("N")
      ->capture_default_str();
  add_penalties(command, options);
  add_limits(command, options);
}

Result<GenerateOptions> generate_options(const Engine& engine, const AnswerOptions& options) {
  GenerateOptions out = options.generate;
  for (const std::string& text : options.logit_bias) {
    BOUGH_ASSIGN_OR_RETURN(const LogitBias bias, read_bias(text));
    out.logit_bias.push_back(bias);
  }
  if (!options.grammar.empty()) {
    BOUGH_ASSIGN_OR_RETURN(out.grammar, read_text(options.grammar));
  }
  if (options.json_schema.starts_with("{")) {
    out.json_schema = options.json_schema;
  } else if (!options.json_schema.empty()) {
    BOUGH_ASSIGN_OR_RETURN(out.json_schema, read_text(options.json_schema));
  }
  BOUGH_RETURN_IF_ERROR(engine.check(out));
  return out;
}

}  // namespace bough::cli
