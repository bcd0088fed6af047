// Places of needles, texts of trials.
#include "eval/haystack.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace bough::eval {
namespace {

constexpr int64_t offset_step = 9973;
constexpr int64_t offset_range = 300'000;

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

}  // namespace

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

Woven weave(std::span<const TokenId> haystack, std::span<const Needle> needles, const std::function<bool(TokenId)>& ends_sentence) {
  std::vector<size_t> order(needles.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return needles[a].depth < needles[b].depth; });
  Woven woven;
  woven.places.resize(needles.size());
  int64_t done = 0;  // tokens of the haystack that are placed
  for (const size_t i : order) {
    const auto wanted = static_cast<int64_t>(needles[i].depth * static_cast<double>(haystack.size()));
    const int64_t place = std::max(done, needle_place(haystack, wanted, ends_sentence));
    append_to(woven.tokens, haystack.subspan(static_cast<size_t>(done), static_cast<size_t>(place - done)));
    done = place;
    woven.places[i] = static_cast<int64_t>(woven.tokens.size());
    append_to(woven.tokens, needles[i].tokens);
  }
  append_to(woven.tokens, haystack.subspan(static_cast<size_t>(done)));
  return woven;
}

Result<std::vector<TokenId>> trial_haystack(const Corpus& corpus, const TrialSet& set, int trial, int64_t tokens) {
  int64_t offset = 0;
  if (!set.one_haystack && !corpus.endless) offset = (trial * offset_step) % offset_range % std::max<int64_t>(1, corpus.starts(tokens));
  return corpus.piece(offset, tokens);
}

Result<int64_t> haystack_room(const Prompt& prompt, int64_t needle_tokens, int64_t length) {
  const auto fixed = static_cast<int64_t>(prompt.text.size() + prompt.question.size()) + needle_tokens + prompt.answer_room;
  if (length > fixed) return length - fixed;
  return Status(Code::invalid_argument,
                "a prompt of " + std::to_string(length) + " tokens is too short: at least " + std::to_string(fixed + 1) + " are needed");
}

Status set_answer(const Engine& engine, std::string_view answer, Prompt& prompt) {
  BOUGH_ASSIGN_OR_RETURN(prompt.answer, engine.tokenize(" " + std::string(answer), false));
  while (prompt.answer.size() > 1) {
    BOUGH_ASSIGN_OR_RETURN(const std::string piece, engine.detokenize(std::span(prompt.answer).first(1)));
    if (piece.find_first_not_of(' ') != std::string::npos) break;
    prompt.question.push_back(prompt.answer.front());
    prompt.answer.erase(prompt.answer.begin());
  }
  return {};
}

}  // namespace bough::eval
