// bough bench: how fast a model reads (prefill) and writes (decode) on this machine.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/memory.h"
#include "bench_cost.h"
#include "cli.h"
#include "eval/corpus.h"
#include "eval/score.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"
#include "read_rate.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
  ModelOptions model;
  std::vector<std::string> plans;
  std::string what = "all";
  std::string depths = "0,2048,8192,32768";
  std::string lengths;  // empty: the depths that are not 0
  std::string text = "filler";
  bool json = false;
};

struct Row {
  std::string what;
  std::string plan;
  int64_t depth = 0;
  int64_t tokens = 0;
  double ms = 0;  // prefill: in all; decode: mean of a token
  std::optional<double> slowest_ms;
  double tokens_per_second = 0;
  std::optional<double> bytes;        // read from memory by one decode step, at least
  std::optional<double> limit_share;  // of the measured read rate
  uint64_t checksum = 0;
};

constexpr int64_t real_tokens = 2'048;  // read before the cache is filled with copies
constexpr int64_t least_steps = 32;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of the first choices in order: two runs that compute the same have the same checksum.
uint64_t add_choice(uint64_t checksum, std::span<const float> logits) {
  const auto best = static_cast<uint64_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  return (checksum ^ best) * 0x100000001B3ull;
}

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

Status read_quietly(Session& session, std::span<const TokenId> tokens, int64_t logits, const std::string& label, bool json) {
  ProgressReporter reporter(label, json ? ProgressStyle::lines : progress_style(false));
  AppendOptions append;
  append.logits = logits;
  append.progress = [&](const Progress& p) {
    reporter.update(p.done, p.total, p.seconds);
    return !interrupted();
  };
  Status status = session.append(tokens, append);
  if (status.code() == Code::cancelled) return Status(Code::cancelled, "interrupted");
  return status;
}

Result<Row> bench_prefill(Engine& engine, const eval::Corpus& corpus, int64_t length, const BenchOptions& options) {
  BOUGH_RETURN_IF_ERROR(check_memory(engine.info(), engine.kv_type(), length));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, corpus.piece(0, length));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  Row row{.what = "prefill", .plan = {}, .depth = length, .tokens = length};
  const auto start = std::chrono::steady_clock::now();
  BOUGH_RETURN_IF_ERROR(read_quietly(*session, tokens, 1, "prefill " + grouped(length), options.json));
  const double seconds = seconds_since(start);
  row.ms = seconds * 1000;
  row.tokens_per_second = static_cast<double>(length) / seconds;
  row.checksum = add_choice(0xCBF29CE484222325ull, eval::last_row(session->logits(), engine.info().vocab));
  return row;
}

// Whole cycles of the slowest refresh, at least least_steps.
int64_t decode_steps(const AttentionPlan& plan) {
  const int64_t cycle = plan.longest_refresh();
  return (least_steps + cycle - 1) / cycle * cycle;
}

// Whole cycles before the clock starts: of tokens that were filled in, and not read, each search of a first stage makes the summaries of
// at least so many.
int64_t warm_steps(const AttentionPlan& plan, int64_t depth) {
  constexpr int64_t summarised = 65'536;
  return std::max(decode_steps(plan), (1 + depth / summarised) * plan.longest_refresh());
}

Result<std::unique_ptr<Session>> session_at(Engine& engine, const eval::Corpus& corpus, int64_t depth, const BenchOptions& options) {
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, engine.new_session());
  const int64_t read = std::min(depth, real_tokens);
  if (read > 0) {
    BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, corpus.piece(0, read));
    BOUGH_RETURN_IF_ERROR(read_quietly(*session, tokens, 0, "filling " + grouped(depth), options.json));
  }
  if (depth > read) BOUGH_RETURN_IF_ERROR(session->fill_with_copies(depth));
  return session;
}

Result<Row> bench_decode(Engine& engine, const eval::Corpus& corpus, int64_t depth, double read_rate, const BenchOptions& options) {
  const int64_t steps = decode_steps(engine.plan()), warm = warm_steps(engine.plan(), depth), all = warm + steps;
  BOUGH_RETURN_IF_ERROR(check_memory(engine.info(), engine.kv_type(), depth + all));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, session_at(engine, corpus, depth, options));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, corpus.piece(std::min(depth, real_tokens), all));
  Row row{.what = "decode", .plan = {}, .depth = depth, .tokens = steps};
  double total = 0;
  double slowest = 0;
  double context = 0;
  row.checksum = 0xCBF29CE484222325ull;
  for (int64_t step = 0; step < all; ++step) {
    if (interrupted()) return Status(Code::cancelled, "interrupted");
    const auto start = std::chrono::steady_clock::now();
    BOUGH_RETURN_IF_ERROR(session->decode(tokens[static_cast<size_t>(step)]));
    const double ms = seconds_since(start) * 1000;
    row.checksum = add_choice(row.checksum, eval::last_row(session->logits(), engine.info().vocab));
    if (step < warm) continue;
    total += ms;
    slowest = std::max(slowest, ms);
    context += session->context_tokens();
  }
  const auto count = static_cast<double>(steps);
  row.ms = total / count;
  row.slowest_ms = slowest;
  row.tokens_per_second = 1000 / row.ms;
  const ModelInfo& info = engine.info();
  row.bytes = static_cast<double>(info.weight_bytes) + context / count * static_cast<double>(info.kv_bytes_per_token(engine.kv_type()));
  if (read_rate > 0) row.limit_share = *row.bytes / read_rate / (row.ms / 1000);
  return row;
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

void print_row(const Row& row, double read_rate, bool json) {
  if (json) {
    const Json line = {{"what", row.what},
                       {"plan", row.plan},
                       {"depth", row.depth},
                       {"tokens", row.tokens},
                       {"ms", row.ms},
                       {"slowest_ms", or_null(row.slowest_ms)},
                       {"tokens_per_second", row.tokens_per_second},
                       {"bytes", or_null(row.bytes)},
                       {"limit_share", or_null(row.limit_share)},
                       {"read_bytes_per_second", read_rate > 0 ? Json(read_rate) : Json(nullptr)},
                       {"peak_memory_bytes", peak_memory()},
                       {"checksum", hex(row.checksum)}};
    print_line(line.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  const std::string plan = row.plan.size() > 12 ? row.plan.substr(0, 10) + ".." : row.plan;
  std::printf("%-8s %-12s %9lld %9lld %12s %11s %12s %10s %6s  %s\n", row.what.c_str(), plan.c_str(), static_cast<long long>(row.depth),
              static_cast<long long>(row.tokens), fixed(row.ms, 2).c_str(), row.slowest_ms ? fixed(*row.slowest_ms, 2).c_str() : "-",
              rate_text(row.tokens_per_second).c_str(), row.bytes ? byte_text(*row.bytes).c_str() : "-",
              row.limit_share ? (fixed(*row.limit_share * 100, 0) + "%").c_str() : "-", hex(row.checksum).c_str());
  std::fflush(stdout);
}

Result<eval::Corpus> open_corpus(const Engine& engine, const std::string& text) {
  if (text == eval::filler_name) return eval::filler_corpus(engine);
  BOUGH_ASSIGN_OR_RETURN(const std::string content, read_text(text));
  return eval::text_corpus(engine, text, content);
}

Status bench_plan(const BenchOptions& options, const std::string& plan, double& read_rate) {
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(options.model, plan));
  BOUGH_ASSIGN_OR_RETURN(const eval::Corpus corpus, open_corpus(*engine, options.text));
  BOUGH_ASSIGN_OR_RETURN(const std::string label, plan_label(plan));
  if (read_rate == 0 && options.what != "prefill") {
    read_rate = measure_read_rate(engine->threads());
    log_info("memory is read at " + byte_text(read_rate) + " a second");
  }
  std::vector<int64_t> depths = read_number_list(options.depths);
  if (options.what != "decode") {
    for (const int64_t length : read_number_list(options.lengths.empty() ? options.depths : options.lengths)) {
      if (length == 0) continue;
      BOUGH_ASSIGN_OR_RETURN(Row row, bench_prefill(*engine, corpus, length, options));
      row.plan = label;
      print_row(row, read_rate, options.json);
    }
  }
  if (options.what == "prefill") return Status();
  for (const int64_t depth : depths) {
    BOUGH_ASSIGN_OR_RETURN(Row row, bench_decode(*engine, corpus, depth, read_rate, options));
    row.plan = label;
    print_row(row, read_rate, options.json);
  }
  return Status();
}

int bench(BenchOptions options) {
  start_log(options.model.verbose);
  if (options.plans.empty()) options.plans = {"default"};
  for (const std::string& plan : options.plans) {
    if (const Result<AttentionPlan> parsed = parse_plan(plan); !parsed.ok()) return fail_usage(parsed.status().message());
  }
  if (options.what == "cost") {
    const Status status = bench_cost(options.model, options.plans, read_number_list(options.lengths), options.json);
    return status.ok() ? exit_ok : fail(status);
  }
  catch_interrupt();
  if (!options.json) {
    std::printf("%-8s %-12s %9s %9s %12s %11s %12s %10s %6s  %s\n", "what", "plan", "depth", "tokens", "ms", "slowest ms", "tokens/s",
                "bytes", "limit", "checksum");
    std::fflush(stdout);
  }
  double read_rate = 0;
  for (const std::string& plan : options.plans) {
    if (const Status status = bench_plan(options, plan, read_rate); !status.ok()) return fail(status);
  }
  return exit_ok;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Measure reading and writing speed at several depths");
  command->add_option("--what", options->what, "prefill, decode, all (both) or cost")
      ->check(CLI::Validator(
          [](std::string& text) {
            const bool known = text == "prefill" || text == "decode" || text == "all" || text == "cost";
            return known ? std::string() : "'" + text + "' is none of prefill, decode, all, cost";
          },
          ""))
      ->type_name("WHAT")
      ->capture_default_str();
  command->add_option("--depths", options->depths, "Tokens in the cache before decode, comma-separated")
      ->check(number_list(0, max_length))
      ->type_name("N,N...")
      ->capture_default_str();
  command
      ->add_option("--lengths", options->lengths,
                   "Tokens that prefill reads or cost counts, comma-separated; without it the depths above 0, for cost 4,096 to 1,048,576")
      ->check(number_list(1, max_length))
      ->type_name("N,N...");
  command->add_option("--text", options->text, "What is read: a text file, or filler")->type_name("FILE|filler")->capture_default_str();
  command->add_option("-p,--plan", options->plans, "Attention plan, as for ask; may be given several times")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->type_name("NAME|JSON|FILE");
  command->add_flag("--json", options->json, "One JSON object a row on stdout");
  add_model_options(*command, options->model);
  command->footer(
      "Example:\n"
      "  bough bench --what decode --depths 2048,32768 --plan default --plan dense\n"
      "\n"
      "ms: prefill in all; decode the mean of a token over at least 32 steps in whole refresh cycles. limit: the bytes that a\n"
      "decode step must read (weights and the keys and values attended to), as a share of the measured memory read rate.\n"
      "Past 2,048 tokens the cache is filled with copies before decode, which costs no reading.\n"
      "cost: counted, not timed. keys scored (by one KV head, mean of layers and a refresh cycle) and attended to in a decode step;\n"
      "operations of reading a text of that length: search, attention over what it chose, and the model's weights.");
  command->callback([options, &action] { action = [options] { return bench(*options); }; });
}

}  // namespace bough::cli
