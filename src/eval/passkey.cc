#include "eval/passkey.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "eval/score.h"

namespace bough::eval {
namespace {

constexpr int64_t offset_step = 9973;
constexpr int64_t offset_range = 300'000;
constexpr int64_t page = 64;
constexpr int sources_looked_at = 10;
constexpr int sources_shown = 3;

constexpr std::string_view introduction =
    "There is an important pass key hidden inside a lot of text. Find it and memorize it. I will quiz you about it.\n\n";
constexpr std::string_view question = "\n\nWhat is the pass key? The pass key is";

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// The place after the full stop nearest to `wanted`, in 0 .. haystack size.
int64_t needle_place(std::span<const TokenId> haystack, int64_t wanted, const std::function<bool(TokenId)>& ends_sentence) {
  const auto size = static_cast<int64_t>(haystack.size());
  const auto fits = [&](int64_t place) { return place >= 1 && place <= size && ends_sentence(haystack[static_cast<size_t>(place - 1)]); };
  for (int64_t distance = 0; distance <= size; ++distance) {
    if (fits(wanted - distance)) return wanted - distance;
    if (fits(wanted + distance)) return wanted + distance;
  }
  return wanted;
}

// Remembers for each token whether its text ends in a full stop.
std::function<bool(TokenId)> full_stops(const Engine& engine) {
  auto known = std::make_shared<std::unordered_map<TokenId, bool>>();
  return [&engine, known](TokenId token) {
    const auto found = known->find(token);
    if (found != known->end()) return found->second;
    const Result<std::string> piece = engine.detokenize(std::span(&token, 1));
    const bool stop = piece.ok() && !piece->empty() && piece->back() == '.';
    known->emplace(token, stop);
    return stop;
  };
}

void append_to(std::vector<TokenId>& out, std::span<const TokenId> more) { out.insert(out.end(), more.begin(), more.end()); }

Result<std::vector<PasskeyPrompt>> all_prompts(const Engine& engine, const Corpus& corpus, const PasskeyOptions& options) {
  const auto stops = full_stops(engine);
  std::vector<PasskeyPrompt> prompts;
  for (int i = 0; i < options.trials; ++i) {
    BOUGH_ASSIGN_OR_RETURN(const PasskeyParts parts, passkey_parts(engine, passkey_of(options.seed, i)));
    const PasskeyTrial trial{i, options.trials, options.length, options.seed, options.one_haystack};
    BOUGH_ASSIGN_OR_RETURN(PasskeyPrompt prompt, assemble_passkey(parts, corpus, trial, stops));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

// An append that has read its last slice is whole even if it was asked to stop there; the task stops all the same.
Status cancelled() { return Status(Code::cancelled, "stopped between two pieces of a prompt"); }

// Reads the prompt from token `held` of its text on. `report` gets the tokens read so far; false stops.
Status read_prompt(Session& session, const PasskeyPrompt& prompt, int64_t held, const std::function<bool(int64_t)>& report) {
  bool going = true;
  AppendOptions append;
  append.progress = [&](const Progress& p) { return going = report(p.done); };
  const auto rest = std::span(prompt.text).subspan(static_cast<size_t>(held));
  if (!rest.empty()) BOUGH_RETURN_IF_ERROR(session.append(rest, append));
  const auto read = static_cast<int64_t>(rest.size());
  if (!going) return cancelled();
  append.will_sample = true;
  append.sources = true;
  append.progress = [&](const Progress& p) { return going = report(read + p.done); };
  BOUGH_RETURN_IF_ERROR(session.append(prompt.question, append));
  return going ? Status() : cancelled();
}

Result<PasskeyResult> score_answer(Session& session, const PasskeyPrompt& prompt, int64_t vocab) {
  PasskeyResult result;
  result.needle = prompt.needle;
  result.answer_tokens = static_cast<int>(prompt.answer.size());
  for (size_t i = 0; i < prompt.answer.size(); ++i) {
    const TokenId token = prompt.answer[i];
    BOUGH_ASSIGN_OR_RETURN(const Score score, score_token(last_row(session.logits(), vocab), token));
    result.nll += score.nll;
    result.right += score.first_choice ? 1 : 0;
    if (i + 1 < prompt.answer.size()) BOUGH_RETURN_IF_ERROR(session.decode(token));
  }
  BOUGH_ASSIGN_OR_RETURN(const std::vector<Source> sources, session.sources({.count = sources_looked_at}));
  result.source_rank = source_rank(sources, prompt);
  return result;
}

}  // namespace

std::string passkey_of(uint64_t seed, int trial) {
  return std::to_string(10'000 + splitmix64(splitmix64(seed) + static_cast<uint64_t>(trial)) % 90'000);
}

Result<PasskeyParts> passkey_parts(const Engine& engine, const std::string& key) {
  PasskeyParts parts;
  BOUGH_ASSIGN_OR_RETURN(parts.introduction, engine.tokenize(introduction));
  BOUGH_ASSIGN_OR_RETURN(parts.needle, engine.tokenize(" The pass key is " + key + ". Remember it. " + key + " is the pass key.", false));
  BOUGH_ASSIGN_OR_RETURN(parts.question, engine.tokenize(question, false));
  BOUGH_ASSIGN_OR_RETURN(parts.answer, engine.tokenize(" " + key, false));
  while (parts.answer.size() > 1) {
    BOUGH_ASSIGN_OR_RETURN(const std::string piece, engine.detokenize(std::span(parts.answer).first(1)));
    if (piece.find_first_of("0123456789") != std::string::npos) break;
    parts.question.push_back(parts.answer.front());
    parts.answer.erase(parts.answer.begin());
  }
  return parts;
}

Result<PasskeyPrompt> assemble_passkey(const PasskeyParts& parts, const Corpus& corpus, const PasskeyTrial& trial,
                                       const std::function<bool(TokenId)>& ends_sentence) {
  const auto fixed = static_cast<int64_t>(parts.introduction.size() + parts.needle.size() + parts.question.size());
  const int64_t hay = trial.length - fixed;
  if (hay < 1) {
    return Status(Code::invalid_argument, "a passkey prompt of " + std::to_string(trial.length) + " tokens is too short: at least " +
                                              std::to_string(fixed + 1) + " are needed");
  }
  if (trial.trials < 1 || trial.trial < 0 || trial.trial >= trial.trials) {
    return Status(Code::invalid_argument, "trial " + std::to_string(trial.trial) + " is outside 0 to " + std::to_string(trial.trials - 1));
  }
  int64_t offset = 0;
  if (!trial.one_haystack && !corpus.endless)
    offset = (trial.trial * offset_step) % offset_range % std::max<int64_t>(1, corpus.starts(hay));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> haystack, corpus.piece(offset, hay));
  const auto wanted = static_cast<int64_t>((trial.trial + 0.5) / trial.trials * static_cast<double>(hay));
  const int64_t place = needle_place(haystack, wanted, ends_sentence);

  PasskeyPrompt prompt;
  prompt.text.reserve(static_cast<size_t>(trial.length));
  append_to(prompt.text, parts.introduction);
  append_to(prompt.text, std::span(haystack).first(static_cast<size_t>(place)));
  prompt.needle = static_cast<int64_t>(prompt.text.size());
  prompt.needle_tokens = static_cast<int64_t>(parts.needle.size());
  append_to(prompt.text, parts.needle);
  append_to(prompt.text, std::span(haystack).subspan(static_cast<size_t>(place)));
  prompt.question = parts.question;
  prompt.answer = parts.answer;
  return prompt;
}

int source_rank(std::span<const Source> sources, const PasskeyPrompt& prompt) {
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

Result<Cell> run_passkey(Engine& engine, const Corpus& corpus, const PasskeyOptions& options) {
  if (options.trials < 1) return Status(Code::invalid_argument, "trials must be at least 1, not " + std::to_string(options.trials));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<PasskeyPrompt> prompts, all_prompts(engine, corpus, options));
  std::vector<int64_t> held(prompts.size(), 0);
  int64_t total = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (options.share_prefixes && i + 1 < prompts.size()) held[i] = shared_prefix(prompts[i].text, prompts[i + 1].text);
    total += options.length - held[i];
  }

  Cell cell{.task = "passkey", .length = options.length, .text = corpus.name, .trials = options.trials, .seed = options.seed};
  cell.one_haystack = options.one_haystack;
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, engine.new_session());
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  int64_t read = 0;
  int64_t answer_tokens = 0;
  int exact = 0;
  int right = 0;
  int found = 0;
  double nll = 0;
  for (int i = options.trials - 1; i >= 0; --i) {
    const PasskeyPrompt& prompt = prompts[static_cast<size_t>(i)];
    const int64_t kept = held[static_cast<size_t>(i)];
    BOUGH_RETURN_IF_ERROR(session->rollback(kept));
    BOUGH_RETURN_IF_ERROR(read_prompt(*session, prompt, kept, [&](int64_t done) {
      return !options.progress || options.progress({.done = read + done, .total = total, .seconds = elapsed()});
    }));
    read += options.length - kept;
    BOUGH_ASSIGN_OR_RETURN(PasskeyResult result, score_answer(*session, prompt, engine.info().vocab));
    result.trial = i;
    result.key = passkey_of(options.seed, i);
    answer_tokens += result.answer_tokens;
    right += result.right;
    exact += result.right == result.answer_tokens ? 1 : 0;
    nll += result.nll;
    found += result.source_rank >= 1 && result.source_rank <= sources_shown ? 1 : 0;
    if (options.on_result) options.on_result(result);
  }
  cell.exact = static_cast<double>(exact) / options.trials;
  cell.digits = static_cast<double>(right) / static_cast<double>(answer_tokens);
  cell.sources = static_cast<double>(found) / options.trials;
  cell.cross_entropy = nll / static_cast<double>(answer_tokens);
  cell.tokens = read + answer_tokens - options.trials;
  cell.seconds = elapsed();
  return cell;
}

}  // namespace bough::eval
