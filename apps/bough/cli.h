// What every command of the program shares: exit codes, errors, common options, and the way to an open engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "bough/engine.h"

namespace bough::cli {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;         // something went wrong while running
inline constexpr int exit_usage = 2;          // the command line cannot be meant
inline constexpr int exit_interrupted = 130;  // Ctrl-C

// A command fills its options while the command line is parsed and leaves here what is to be run afterwards.
using Action = std::function<int()>;

void add_ask(CLI::App& app, Action& action);
// The parser splits a listed word in brackets ("[a, b]") at its commas. A mark before such a word of `ask` keeps it whole; `ask` takes
// the mark off again.
std::string marked_word(const std::string& word);
void add_chat(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_plot(CLI::App& app, Action& action);
void add_sessions(CLI::App& app, Action& action);

// Print "bough: <sentence>" on stderr and return the exit code.
int fail(const Status& status);               // exit_failed; exit_interrupted for Code::cancelled
int fail_usage(const std::string& sentence);  // exit_usage
int fail_options(const Status& status);       // exit_usage for Code::invalid_argument, otherwise as fail

// One line of JSON on stdout, flushed. `line` holds no newline.
void print_line(std::string_view line);

struct ModelOptions {
  std::string model;  // empty: the embedded model
  std::string kv = "bf16";
  int threads = 0;
  double kv_memory_gigabytes = 0;  // 0: the engine decides
  bool verbose = false;
};

struct AnswerOptions {
  GenerateOptions generate;             // all but what follows
  std::vector<std::string> logit_bias;  // ID=VALUE
  std::string grammar;                  // a file
  std::string json_schema;              // a JSON object or a file
};

inline constexpr int64_t max_answer_tokens = 1'048'576;
inline constexpr int64_t max_length = 16'777'216;  // tokens, of any prompt or depth asked for

void add_model_option(CLI::App& command, ModelOptions& options);   // -m and -v
void add_model_options(CLI::App& command, ModelOptions& options);  // and threads, KV type
void add_memory_option(CLI::App& command, ModelOptions& options);
void add_plan_option(CLI::App& command, std::string& plan);
void add_answer_options(CLI::App& command, AnswerOptions& options);
// What the engine is asked for, without on_text, and checked by it. Reads the files that are named. Errors: those of read_text and
// Engine::check.
Result<GenerateOptions> generate_options(const Engine& engine, const AnswerOptions& options);

// A whole number of lo..hi; a number of lo..hi. Each names the value and the limits.
CLI::Validator whole_number(int64_t lo, int64_t hi);
CLI::Validator number_between(double lo, double hi);
// Checks and reads "8192,32768": at least one number, each in lo..hi.
CLI::Validator number_list(int64_t lo, int64_t hi);
std::vector<int64_t> read_number_list(std::string_view text);

// ${BOUGH_CACHE:-${XDG_CACHE_HOME:-~/.cache}/bough}
std::string cache_folder();
// models/SmolLM2-135M-Instruct.Q4_1.gguf in it
std::string default_model_path();
// The path asked for, or the default one. Errors: not_found, with how to get the embedded model.
Result<std::string> find_model(const ModelOptions& options);
DType kv_type(const ModelOptions& options);

// A plan as reports name it: a preset's name, otherwise the whole plan as JSON.
Result<std::string> plan_label(const std::string& spec);

// Opens and, with --verbose, logs what was chosen.
Result<std::unique_ptr<Engine>> open_engine(const ModelOptions& options, const std::string& plan);

// Errors: out_of_memory when the KV cache of `tokens` tokens does not fit the memory that is free now (both numbers).
Status check_memory(const ModelInfo& info, DType kv, int64_t tokens);
// The same for what stays in memory of a text whose KV cache lies in a file: at most an eighth of its keys.
Status check_memory_of_kept(const ModelInfo& info, DType kv, int64_t tokens);

}  // namespace bough::cli
