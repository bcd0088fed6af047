#include "sources.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t shown_passages = 3;
constexpr int candidates = 6;          // found, since some may lie outside the files
constexpr double least_weight = 0.02;  // of the whole text's; the first passage is shown in any case
constexpr size_t quote_characters = 100;
constexpr size_t sentence_reach = 120;  // bytes looked at for the sentence's ends
constexpr std::string_view blanks = " \t\n\r\f\v";

bool is_blank(char c) { return blanks.find(c) != std::string_view::npos; }
bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
bool ends_sentence(std::string_view text, size_t at) {
  if (text[at] == '\n') return at > 0 && text[at - 1] == '\n';
  return (text[at] == '.' || text[at] == '!' || text[at] == '?') && (at + 1 == text.size() || is_blank(text[at + 1]));
}

// Blanks and control characters (C0, DEL, C1) run together to one space.
std::string one_line(std::string_view text) {
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) ++i;
    if (c1 || c <= 0x20 || c == 0x7F) {
      if (!line.empty() && line.back() != ' ') line += ' ';
    } else {
      line += text[i];
    }
  }
  if (line.ends_with(' ')) line.pop_back();
  return line;
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

// Start of the sentence that holds `at`, or of its word when that start is too far away.
size_t sentence_start(std::string_view text, size_t at) {
  const size_t least = at < sentence_reach ? 0 : at - sentence_reach;
  for (size_t i = at; i > least; --i) {
    if (ends_sentence(text, i - 1)) return i;
  }
  if (least == 0) return 0;
  const size_t blank = text.find_last_of(blanks, at);
  size_t start = blank != std::string_view::npos && blank >= least ? blank + 1 : at;
  while (start > 0 && start < text.size() && is_continuation(text[start])) --start;
  return start;
}

size_t sentence_end(std::string_view text, size_t from) {
  const size_t most = std::min(text.size(), from + sentence_reach);
  for (size_t i = from; i < most; ++i) {
    if (ends_sentence(text, i)) return i + 1;
  }
  size_t end = std::min(text.size(), most);
  while (end < text.size() && is_continuation(text[end])) ++end;
  return end;
}

// The first `most` characters, cut between words where one ends in the last quarter.
std::string_view cut_to(std::string_view line, size_t most) {
  size_t end = 0;
  for (size_t count = 0; end < line.size(); ++end) {
    if (!is_continuation(line[end]) && ++count > most) break;
  }
  if (end == line.size()) return line;
  const size_t blank = line.substr(0, end).rfind(' ');
  return line.substr(0, blank != std::string_view::npos && blank > end - end / 4 ? blank : end);
}

// The file that holds most of the bytes [begin, end); null when none holds any.
const TextPart* part_of(const Texts& texts, size_t begin, size_t end) {
  const TextPart* best = nullptr;
  size_t most = 0;
  for (const TextPart& part : texts.parts) {
    const size_t from = std::max(begin, part.begin);
    const size_t to = std::min(end, part.end);
    if (to <= from || to - from <= most) continue;
    most = to - from;
    best = &part;
  }
  return best;
}

}  // namespace

std::string quote_of(std::string_view text, size_t begin, size_t end) {
  const size_t start = sentence_start(text, begin);
  const size_t stop = sentence_end(text, end > begin ? end - 1 : begin);
  std::string line = one_line(text.substr(start, stop - start));
  bool cut_front = start > 0 && !ends_sentence(text, start - 1);
  if (characters(line) > quote_characters) {  // the passage itself comes first
    while (begin > 0 && is_continuation(text[begin])) --begin;
    while (begin > start && !is_blank(text[begin]) && !is_blank(text[begin - 1])) --begin;
    const std::string before = one_line(text.substr(start, begin - start));
    const std::string rest = one_line(text.substr(begin, stop - begin));
    if (characters(rest) + quote_characters / 4 > quote_characters && !before.empty()) {
      line = rest;
      cut_front = true;
    }
  }
  const std::string_view kept = cut_to(line, quote_characters);
  const bool cut_back = kept.size() < line.size() || (stop < text.size() && !ends_sentence(text, stop - 1));
  return (cut_front ? "..." : "") + std::string(kept) + (cut_back ? "..." : "");
}

std::vector<Passage> passages_of(const Texts& texts, const std::vector<int64_t>& offsets, const std::vector<Source>& sources,
                                 size_t count) {
  std::vector<Passage> passages;
  for (const Source& source : sources) {
    if (passages.size() == count) break;
    if (!passages.empty() && source.weight < least_weight) break;
    auto begin = static_cast<size_t>(offsets[static_cast<size_t>(source.first_token)]);
    auto end = static_cast<size_t>(offsets[static_cast<size_t>(source.first_token + source.tokens)]);
    const TextPart* part = part_of(texts, begin, end);
    if (part == nullptr) continue;
    begin = std::max(begin, part->begin) - part->begin;
    end = std::min(end, part->end) - part->begin;
    const std::string_view text = std::string_view{texts.all}.substr(part->begin, part->end - part->begin);
    while (begin < end && is_blank(text[begin])) ++begin;
    while (begin < end && is_blank(text[end - 1])) --end;
    while (begin > 0 && is_continuation(text[begin])) --begin;
    while (end < text.size() && is_continuation(text[end])) ++end;
    if (begin == end) continue;
    Passage passage;
    passage.file = part->path;
    passage.line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(begin), '\n');
    passage.begin = static_cast<int64_t>(begin + part->skipped);
    passage.end = static_cast<int64_t>(end + part->skipped);
    passage.quote = quote_of(text, begin, end);
    passage.weight = source.weight;
    passages.push_back(std::move(passage));
  }
  return passages;
}

Result<std::vector<Passage>> find_passages(const Engine& engine, const Session& session, const ReadText& read) {
  BOUGH_ASSIGN_OR_RETURN(std::vector<Source> sources, session.sources({read.first_token, read.first_token + read.tokens, candidates}));
  const auto tokens = session.tokens().subspan(static_cast<size_t>(read.first_token), static_cast<size_t>(read.tokens));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, engine.token_offsets(read.texts->all, tokens));
  for (Source& source : sources) source.first_token -= read.first_token;
  return passages_of(*read.texts, offsets, sources, shown_passages);
}

void print_passages(const std::vector<Passage>& passages) {
  if (passages.empty()) return;
  std::fputs("sources:\n", stderr);
  for (const Passage& p : passages) {
    const std::string place = one_line(p.file == "-" ? "standard input" : p.file) + ":" + std::to_string(p.line);
    std::fprintf(stderr, "  %3d%%  %s  \"%s\"\n", static_cast<int>(std::lround(p.weight * 100)), place.c_str(), p.quote.c_str());
  }
}

std::string passages_json(const std::vector<Passage>& passages) {
  Json list = Json::array();
  for (const Passage& p : passages) {
    list.push_back({{"file", p.file}, {"line", p.line}, {"begin", p.begin}, {"end", p.end}, {"quote", p.quote}, {"weight", p.weight}});
  }
  return Json({{"event", "sources"}, {"sources", list}}).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace bough::cli
