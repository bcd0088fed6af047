#include "eval/corpus.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace bough::eval {
namespace {

constexpr std::string_view filler_text = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

}  // namespace

int64_t Corpus::starts(int64_t count) const {
  const auto held = static_cast<int64_t>(tokens.size());
  if (endless) return held;
  return std::max<int64_t>(0, held - count + 1);
}

Result<std::vector<TokenId>> Corpus::piece(int64_t offset, int64_t count) const {
  const auto held = static_cast<int64_t>(tokens.size());
  if (offset < 0 || count < 0 || held == 0) return Status(Code::invalid_argument, "a piece of text must start and end inside it");
  if (!endless && (count > held || offset > held - count)) {
    return Status(Code::invalid_argument, "the text '" + name + "' has " + std::to_string(held) + " tokens, and " + std::to_string(count) +
                                              " tokens from token " + std::to_string(offset) + " on are needed");
  }
  std::vector<TokenId> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = tokens[static_cast<size_t>((offset + i) % held)];
  return out;
}

Result<Corpus> filler_corpus(const Engine& engine) {
  BOUGH_ASSIGN_OR_RETURN(Corpus corpus, text_corpus(engine, std::string(filler_name), filler_text));
  corpus.endless = true;
  return corpus;
}

Result<Corpus> text_corpus(const Engine& engine, std::string name, std::string_view text) {
  BOUGH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, engine.tokenize(text, /*add_bos=*/false));
  if (tokens.empty()) return Status(Code::invalid_argument, "the text '" + name + "' has no tokens");
  return Corpus{std::move(name), std::move(tokens), false};
}

}  // namespace bough::eval
