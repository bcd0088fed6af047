// The passages that an answer drew on, as places in the files that were read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "input.h"

namespace bough::cli {

struct Passage {
  std::string file;   // path as it was given; "-" is standard input
  int64_t line = 0;   // of its first word, from 1
  int64_t begin = 0;  // bytes [begin, end) of the file
  int64_t end = 0;
  std::string quote;  // one line
  double weight = 0;  // 0..1
};

// `text` [begin, end) and the rest of its sentence as one line of at most about 100 characters: blanks run together, control characters
// become blanks, cuts between UTF-8 characters, "..." where a sentence goes on.
std::string quote_of(std::string_view text, size_t begin, size_t end);

// offsets: of the tokens of texts.all, [tokens + 1]. sources: by tokens of that text. At most `count`, without those that say next to
// nothing beside the first or that are no part of a file.
std::vector<Passage> passages_of(const Texts& texts, const std::vector<int64_t>& offsets, const std::vector<Source>& sources, size_t count);

// The text that was read, as the session holds it from token `first_token` on.
struct ReadText {
  const Texts* texts = nullptr;
  int64_t first_token = 0;
  int64_t tokens = 0;
};

// Errors: those of Session::sources and Engine::token_offsets.
Result<std::vector<Passage>> find_passages(const Engine& engine, const Session& session, const ReadText& read);

// Lines for people, on stderr.
void print_passages(const std::vector<Passage>& passages);
// One line of JSON.
std::string passages_json(const std::vector<Passage>& passages);

}  // namespace bough::cli
