#include "inspect_attention.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "eval/attention_trace.h"
#include "eval/svg_attention.h"
#include "format.h"
#include "input.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"
#include "text/utf8.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kExcerpt = 90;  // characters

struct Seen {
  std::string plan;  // its label
  int64_t query = 0;
  std::string token;  // the query's
  eval::AttentionTrace trace;
  eval::AttentionShares shares;
  std::vector<std::string> excerpts;  // of the missed blocks
};

// What tokens say, on one line.
Result<std::string> excerpt(const Engine& engine, std::span<const TokenId> text, const eval::TokenRun& run) {
  const auto tokens = text.subspan(static_cast<size_t>(run.begin), static_cast<size_t>(run.end - run.begin));
  BOUGH_ASSIGN_OR_RETURN(std::string said, engine.detokenize(tokens, /*special=*/true));
  said = replace_invalid_utf8(said);
  std::replace_if(
      said.begin(), said.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  size_t bytes = 0;
  for (size_t characters = 0; bytes < said.size() && characters < kExcerpt; ++characters) {
    bytes += first_char(std::string_view(said).substr(bytes)).bytes;
  }
  return "\"" + said.substr(0, bytes) + (bytes < said.size() ? "..." : "") + "\"";
}

Result<Seen> look(const ModelOptions& model, const std::string& plan, const AttentionOptions& options, bool json) {
  Seen seen;
  BOUGH_ASSIGN_OR_RETURN(seen.plan, plan_label(plan));
  BOUGH_ASSIGN_OR_RETURN(const std::string content, read_text(options.text));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(model, plan));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> text, engine->tokenize(content));
  BOUGH_RETURN_IF_ERROR(check_memory(engine->info(), engine->kv_type(), static_cast<int64_t>(text.size())));
  seen.query = options.query < 0 ? static_cast<int64_t>(text.size()) - 1 : options.query;
  ProgressReporter reporter("reading", json ? ProgressStyle::lines : progress_style(false));
  eval::TraceOptions trace{.layer = options.layer, .head = options.head, .query = seen.query, .progress = {}};
  trace.progress = [&](const Progress& p) {
    reporter.update(p.done, p.total, p.seconds);
    return !interrupted();
  };
  BOUGH_ASSIGN_OR_RETURN(seen.trace, eval::trace_attention(*engine, text, trace));
  reporter.clear();
  seen.shares = eval::attention_shares(seen.trace, options.blocks);
  BOUGH_ASSIGN_OR_RETURN(seen.token, excerpt(*engine, text, {seen.query, seen.query + 1}));
  for (const eval::MissedBlock& block : seen.shares.blocks) {
    BOUGH_ASSIGN_OR_RETURN(std::string said, excerpt(*engine, text, block.tokens));
    seen.excerpts.push_back(std::move(said));
  }
  return seen;
}

std::string percent(double share) { return fixed(share * 100, 2) + "%"; }

int64_t tokens_in(const std::vector<eval::TokenRun>& runs) {
  int64_t tokens = 0;
  for (const eval::TokenRun& run : runs) tokens += run.end - run.begin;
  return tokens;
}

std::string tokens_text(const eval::TokenRun& run) { return grouped(run.begin) + " to " + grouped(run.end - 1); }

// A plan given as JSON is too long for a sentence.
std::string plan_text(const Seen& seen) { return seen.plan.starts_with("{") ? "the plan given" : "plan " + seen.plan; }

std::string summary(const AttentionOptions& options, const Seen& seen) {
  const eval::AttentionTrace& t = seen.trace;
  const eval::AttentionShares& s = seen.shares;
  const int64_t sinks = tokens_in(t.sinks), selected = tokens_in(t.selected), window = tokens_in(t.window);
  std::string out = "Layer " + std::to_string(options.layer) + ", head " + std::to_string(options.head) + ", token " + grouped(seen.query) +
                    " (" + seen.token + ") under " + plan_text(seen) + ": of its attention " + percent(s.sinks) + " is on " +
                    grouped(sinks) + " sinks, " + percent(s.selected) + " on " + grouped(selected) + " selected tokens, " +
                    percent(s.window) + " on a window of " + grouped(window) + "; " + percent(s.missed) + " is missed, on " +
                    grouped(static_cast<int64_t>(t.mass.size()) - sinks - selected - window) + " tokens.";
  for (size_t i = 0; s.outside > 0 && i < s.stages.size(); ++i) {
    out += (i == 0 ? " Of what lies between sinks and window stage " : ", stage ") + std::to_string(i + 1) + " keeps " +
           percent(s.stages[i] / s.outside) + (i + 1 == s.stages.size() ? "." : "");
  }
  for (size_t i = 0; i < s.blocks.size(); ++i) {
    const eval::MissedBlock& b = s.blocks[i];
    out += (i == 0 ? " Missed most: tokens " : "; ") + tokens_text(b.tokens) + ", " + percent(b.mass) + ", " + seen.excerpts[i] +
           (i + 1 == s.blocks.size() ? "." : "");
  }
  if (!t.true_positions) out += " The text is longer than the trained context: every key stands at the window's distance.";
  return out;
}

std::string summary_json(const AttentionOptions& options, const Seen& seen) {
  const eval::AttentionShares& s = seen.shares;
  Json stages = Json::array(), blocks = Json::array();
  for (size_t i = 0; i < s.stages.size(); ++i) {
    const eval::StageTrace& stage = seen.trace.stages[i];
    stages.push_back({{"chunk", stage.chunk}, {"tokens", tokens_in(stage.kept)}, {"mass", s.stages[i]}});
  }
  for (size_t i = 0; i < s.blocks.size(); ++i) {
    const eval::MissedBlock& b = s.blocks[i];
    blocks.push_back({{"begin", b.tokens.begin}, {"end", b.tokens.end}, {"mass", b.mass}, {"text", seen.excerpts[i]}});
  }
  const Json json = {{"plan", seen.plan},
                     {"layer", options.layer},
                     {"head", options.head},
                     {"query", seen.query},
                     {"true_positions", seen.trace.true_positions},
                     {"sinks", s.sinks},
                     {"selected", s.selected},
                     {"window", s.window},
                     {"missed", s.missed},
                     {"outside", s.outside},
                     {"stages", stages},
                     {"missed_blocks", blocks},
                     {"svg", options.out}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void add_attention_options(CLI::App& command, AttentionOptions& options) {
  CLI::Option* attention =
      command.add_option("--attention", options.text, "Draw one head's attention over this text, and what the plan keeps of it")
          ->type_name("FILE");
  const auto number = [&](const char* name, auto& value, const char* help, int64_t lo, int64_t hi) {
    return command.add_option(name, value, help)->check(whole_number(lo, hi))->type_name("N")->needs(attention);
  };
  number("--layer", options.layer, "Layer, from 0", 0, 1023)->capture_default_str();
  number("--head", options.head, "Query head, from 0", 0, 1023)->capture_default_str();
  number("--query", options.query, "Position of the token that asks, from 0; without it the text's last", 0, max_length);
  number("--missed", options.blocks, "How many of the heaviest missed blocks to name", 0, 100)->capture_default_str();
  command.add_option("--out", options.out, "The drawing, an SVG file")->type_name("FILE")->capture_default_str()->needs(attention);
}

int inspect_attention(const ModelOptions& model, const std::string& plan, const AttentionOptions& options, bool json) {
  catch_interrupt();
  const Result<Seen> seen = look(model, plan, options, json);
  if (!seen.ok()) return fail_options(seen.status());
  eval::AttentionLabels labels;
  labels.title = "Layer " + std::to_string(options.layer) + ", head " + std::to_string(options.head) + ", token " +
                 std::to_string(seen->query) + ": attention and what the plan kept of it";
  labels.subtitle =
      "plan " + seen->plan + ", token " + seen->token + (seen->trace.true_positions ? "" : ", every key at the window's distance");
  labels.excerpts = seen->excerpts;
  std::ofstream file(options.out, std::ios::binary);
  file << eval::draw_attention(seen->trace, seen->shares, labels) << std::flush;
  if (!file) return fail(Status(Code::io_error, "the file '" + options.out + "' cannot be written"));
  print_line(json ? summary_json(options, *seen) : summary(options, *seen));
  if (!json) std::fprintf(stderr, "drawn in %s\n", options.out.c_str());
  return exit_ok;
}

}  // namespace bough::cli
