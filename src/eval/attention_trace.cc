#include "eval/attention_trace.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/check.h"
#include "eval/exact_attention.h"

namespace bough::eval {
namespace {

void add_run(std::vector<TokenRun>& runs, TokenRun run) {
  if (run.begin >= run.end) return;
  if (!runs.empty() && runs.back().end == run.begin) {
    runs.back().end = run.end;
  } else {
    runs.push_back(run);
  }
}

// The chunks of one block's list, cut off at `end`.
std::vector<TokenRun> runs_of(const BlockList& list, int64_t block, int list_head, int64_t end) {
  std::vector<TokenRun> runs;
  for (const int32_t start : std::span(list.list(block, list_head), static_cast<size_t>(list.count[block]))) {
    add_run(runs, {start, std::min<int64_t>(start + list.chunk, end)});
  }
  return runs;
}

AttentionTrace trace_row(const LayerView& v, int64_t index, const TraceOptions& options, bool true_positions) {
  const QueryBlock& block = v.batch.blocks[static_cast<size_t>(index)];
  const int kv_head = options.head / v.setup.heads.group();
  const int64_t end = options.query + 1;
  AttentionTrace trace;
  trace.true_positions = true_positions;
  trace.chunk = v.lists.chunk;
  ExactAttention exact(true_positions);
  exact.load_keys(v, block.seq, kv_head, end);
  const std::span<const float> mass = exact.attend(v, block.row + options.query - block.r0, options.head);
  trace.mass.assign(mass.begin(), mass.end());
  const int64_t w0 = std::min(v.lists.w0[index], end);
  for (const BlockList& stage : v.stages) trace.stages.push_back({stage.chunk, runs_of(stage, index, kv_head, w0)});
  add_run(trace.sinks, {0, std::min(v.lists.sinks, w0)});
  trace.selected = runs_of(v.lists, index, kv_head, w0);
  const int64_t sliding = v.setup.attention_of(v.layer).sliding_window;
  add_run(trace.window, {sliding > 0 ? std::max(w0, end - sliding) : w0, end});
  return trace;
}

Status check(const Engine& engine, std::span<const TokenId> text, const TraceOptions& options) {
  const auto outside = [](const char* what, int64_t value, int64_t count) {
    return Status(Code::invalid_argument,
                  std::string("the ") + what + " is " + std::to_string(value) + ", it must be 0 to " + std::to_string(count - 1));
  };
  const ModelInfo& info = engine.info();
  const auto length = static_cast<int64_t>(text.size());
  if (options.layer < 0 || options.layer >= info.layers) return outside("layer", options.layer, info.layers);
  if (options.head < 0 || options.head >= info.heads) return outside("head", options.head, info.heads);
  if (length == 0) return Status(Code::invalid_argument, "the text has no tokens");
  if (options.query < 0 || options.query >= length) return outside("query's position", options.query, length);
  return {};
}

double mass_in(const AttentionTrace& trace, std::span<const TokenRun> runs) {
  double sum = 0;
  for (const TokenRun& run : runs) {
    for (int64_t t = run.begin; t < run.end; ++t) sum += static_cast<double>(trace.mass[static_cast<size_t>(t)]);
  }
  return sum;
}

}  // namespace

Result<AttentionTrace> trace_attention(Engine& engine, std::span<const TokenId> text, const TraceOptions& options) {
  BOUGH_RETURN_IF_ERROR(check(engine, text, options));
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  std::optional<AttentionTrace> trace;
  const bool true_positions = options.query < engine.info().trained_context;
  engine.observe([&](const LayerView& view) {
    if (view.layer != options.layer) return;
    for (size_t b = 0; b < view.batch.blocks.size(); ++b) {
      const QueryBlock& block = view.batch.blocks[b];
      if (block.r0 <= options.query && options.query < block.r1()) {
        trace = trace_row(view, static_cast<int64_t>(b), options, true_positions);
      }
    }
  });
  AppendOptions append{.will_sample = true};
  append.progress = [&](const Progress& p) { return !trace && (!options.progress || options.progress(p)); };
  const Status status = session->append(text, append);
  engine.observe({});
  if (trace) return std::move(*trace);
  BOUGH_RETURN_IF_ERROR(status);
  return Status(Code::internal, "position " + std::to_string(options.query) + " was not among the rows that were read");
}

AttentionShares attention_shares(const AttentionTrace& trace, int64_t most_blocks) {
  AttentionShares shares;
  shares.sinks = mass_in(trace, trace.sinks);
  shares.selected = mass_in(trace, trace.selected);
  shares.window = mass_in(trace, trace.window);
  for (const StageTrace& stage : trace.stages) shares.stages.push_back(mass_in(trace, stage.kept));
  const int64_t first = trace.sinks.empty() ? 0 : trace.sinks.front().end;
  const int64_t end = trace.window.empty() ? static_cast<int64_t>(trace.mass.size()) : trace.window.front().begin;
  size_t next = 0;  // of the selected runs
  for (int64_t begin = first; begin < end; begin += trace.chunk) {
    const TokenRun run{begin, std::min(begin + trace.chunk, end)};
    const double mass = mass_in(trace, std::span(&run, 1));
    shares.outside += mass;
    while (next < trace.selected.size() && trace.selected[next].end <= begin) ++next;
    if (next < trace.selected.size() && trace.selected[next].begin <= begin) continue;
    shares.missed += mass;
    if (mass > 0) shares.blocks.push_back({run, mass});
  }
  std::stable_sort(shares.blocks.begin(), shares.blocks.end(), [](const MissedBlock& a, const MissedBlock& b) { return a.mass > b.mass; });
  if (static_cast<int64_t>(shares.blocks.size()) > most_blocks) shares.blocks.resize(static_cast<size_t>(most_blocks));
  return shares;
}

}  // namespace bough::eval
