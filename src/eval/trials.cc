// Trials: reading, answering, adding up.
#include "eval/trials.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "eval/score.h"

namespace bough::eval {
namespace {

constexpr int64_t page = 64;
constexpr int sources_looked_at = 10;
constexpr int sources_shown = 3;

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

// An append that has read its last slice is whole even if it was asked to stop there; the task stops all the same.
Status cancelled() { return Status(Code::cancelled, "stopped between two pieces of a prompt"); }

int64_t prompt_tokens(const Prompt& prompt) { return static_cast<int64_t>(prompt.text.size() + prompt.question.size()); }

// Round by round, each from the last prompt to the first.
std::vector<const Prompt*> running_order(std::span<const Prompt> prompts) {
  std::vector<const Prompt*> order;
  for (auto prompt = prompts.rbegin(); prompt != prompts.rend(); ++prompt) order.push_back(&*prompt);
  std::stable_sort(order.begin(), order.end(), [](const Prompt* a, const Prompt* b) { return a->round < b->round; });
  return order;
}

// Sums over the trials of a cell.
struct Sums {
  int exact = 0;
  double right = 0;
  double wanted = 0;
  double nll = 0;
  int64_t fed = 0;
  int with_needle = 0;
  int found = 0;

  void add(const Prompt& prompt, const TrialResult& result) {
    exact += result.right == result.wanted ? 1 : 0;
    // Of fed tokens each counts the same, of greedy answers each answer.
    right += prompt.answer.empty() ? static_cast<double>(result.right) / result.wanted : result.right;
    wanted += prompt.answer.empty() ? 1 : result.wanted;
    nll += result.nll;
    fed += static_cast<int64_t>(prompt.answer.size());
    with_needle += prompt.needle_tokens > 0 ? 1 : 0;
    found += result.source_rank >= 1 && result.source_rank <= sources_shown ? 1 : 0;
  }

  void fill(Cell& cell) const {
    cell.exact = static_cast<double>(exact) / cell.trials;
    cell.score = right / wanted;
    if (fed > 0) cell.cross_entropy = nll / static_cast<double>(fed);
    if (with_needle > 0) cell.sources = static_cast<double>(found) / with_needle;
  }
};

}  // namespace

int strings_found(std::string_view answer, std::span<const std::string> expected) {
  const std::string text = lower_case(answer);
  return static_cast<int>(
      std::count_if(expected.begin(), expected.end(), [&](const std::string& e) { return text.find(lower_case(e)) != std::string::npos; }));
}

int source_rank(std::span<const Source> sources, const Prompt& prompt) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const Source& s = sources[i];
    const int64_t both = std::min(s.first_token + s.tokens, prompt.needle + prompt.needle_tokens) - std::max(s.first_token, prompt.needle);
    if (2 * both >= std::min(s.tokens, prompt.needle_tokens)) return static_cast<int>(i) + 1;
  }
  return 0;
}

int64_t shared_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t most = std::min(a.size(), b.size());
  const auto [first, second] = std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin());
  return (first - a.begin()) / page * page;
}

Result<TrialRunner> TrialRunner::create(Engine& engine) {
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, engine.new_session());
  return TrialRunner(engine, std::move(session));
}

// Reads the prompt from token `kept` of its text on. `report` gets the tokens read so far; false stops.
Status TrialRunner::read(const Prompt& prompt, int64_t kept, const std::function<bool(int64_t)>& report) {
  BOUGH_RETURN_IF_ERROR(session_->rollback(kept));
  text_.resize(static_cast<size_t>(kept));
  bool going = true;
  AppendOptions append;
  append.progress = [&](const Progress& p) { return going = report(p.done); };
  const auto rest = std::span(prompt.text).subspan(static_cast<size_t>(kept));
  if (!rest.empty()) BOUGH_RETURN_IF_ERROR(session_->append(rest, append));
  text_ = prompt.text;
  const auto done = static_cast<int64_t>(rest.size());
  if (!going) return cancelled();
  append.will_sample = true;
  append.sources = prompt.needle_tokens > 0;
  append.progress = [&](const Progress& p) { return going = report(done + p.done); };
  BOUGH_RETURN_IF_ERROR(session_->append(prompt.question, append));
  return going ? Status() : cancelled();
}

Status TrialRunner::feed(const Prompt& prompt, TrialResult& result) {
  result.wanted = static_cast<int>(prompt.answer.size());
  for (size_t i = 0; i < prompt.answer.size(); ++i) {
    const TokenId token = prompt.answer[i];
    BOUGH_ASSIGN_OR_RETURN(const Score score, score_token(last_row(session_->logits(), engine_->info().vocab), token));
    result.nll += score.nll;
    result.right += score.first_choice ? 1 : 0;
    if (i + 1 < prompt.answer.size()) BOUGH_RETURN_IF_ERROR(session_->decode(token));
  }
  return {};
}

Status TrialRunner::generate(const Prompt& prompt, TrialResult& result) {
  result.wanted = static_cast<int>(prompt.expected.size());
  GenerateOptions options;
  options.max_tokens = prompt.answer_room;
  options.on_text = [&](std::string_view piece) {
    result.answer += piece;
    result.right = strings_found(result.answer, prompt.expected);
    return result.right < result.wanted;
  };
  BOUGH_ASSIGN_OR_RETURN(const Generation generation, session_->generate(options));
  return {};
}

Result<TrialResult> TrialRunner::answer(const Prompt& prompt) {
  TrialResult result;
  result.trial = prompt.trial;
  result.key = prompt.key;
  result.needle = prompt.needle;
  BOUGH_RETURN_IF_ERROR(prompt.answer.empty() ? generate(prompt, result) : feed(prompt, result));
  if (prompt.needle_tokens > 0) {
    BOUGH_ASSIGN_OR_RETURN(const std::vector<Source> sources, session_->sources({.count = sources_looked_at}));
    result.source_rank = source_rank(sources, prompt);
  }
  return result;
}

Result<Cell> TrialRunner::run(std::span<const Prompt> prompts, const TrialOptions& options) {
  if (prompts.empty()) return Status(Code::invalid_argument, "a cell needs at least 1 trial");
  const std::vector<const Prompt*> order = running_order(prompts);
  std::vector<int64_t> kept;
  int64_t total = 0;
  std::span<const TokenId> before = text_;
  for (const Prompt* prompt : order) {
    kept.push_back(options.share_prefixes ? shared_prefix(before, prompt->text) : 0);
    total += prompt_tokens(*prompt) - kept.back();
    before = prompt->text;
  }

  Cell cell;
  cell.trials = static_cast<int>(prompts.size());
  Sums sums;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  int64_t done = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const Prompt& prompt = *order[i];
    BOUGH_RETURN_IF_ERROR(read(prompt, kept[i], [&](int64_t read) {
      return !options.progress || options.progress({.done = done + read, .total = total, .seconds = elapsed()});
    }));
    done += prompt_tokens(prompt) - kept[i];
    const int64_t asked = session_->length();
    BOUGH_ASSIGN_OR_RETURN(const TrialResult result, answer(prompt));
    cell.tokens += session_->length() - asked;
    sums.add(prompt, result);
    if (options.on_result) options.on_result(result);
  }
  sums.fill(cell);
  cell.tokens += done;
  cell.seconds = elapsed();
  return cell;
}

}  // namespace bough::eval
