#include "support/english.h"

#include <array>
#include <cctype>
#include <random>
#include <string_view>

namespace bough::test {
namespace {

constexpr std::array<std::string_view, 12> kSubjects = {"the old harbour", "a careful reader", "the northern road", "our neighbour",
                                                        "the engineer",    "every summer",     "the long letter",   "a quiet river",
                                                        "the committee",   "the small engine", "my grandmother",    "the last page"};
constexpr std::array<std::string_view, 12> kVerbs = {"remembered", "carried",  "found",     "described", "kept",   "followed",
                                                     "measured",   "answered", "recovered", "opened",    "passed", "believed in"};
constexpr std::array<std::string_view, 12> kObjects = {"the distant hills",  "a box of maps",   "its own reasons",    "the winter harvest",
                                                       "seven green lamps",  "a broken clock",  "the first question", "what was promised",
                                                       "the names of birds", "a better method", "the market square",  "nothing at all"};
constexpr std::array<std::string_view, 8> kLinks = {", and ", ", but ", " because ", " while ", ". ", ". ", "; ", ".\n\n"};

}  // namespace

std::string english_text(int64_t words, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text;
  bool starts = true;
  const auto add = [&](std::string_view part) {
    std::string piece(part);
    if (starts) piece[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(piece[0])));
    starts = false;
    text += piece;
  };
  for (int64_t i = 0; i < words; i += 7) {
    add(kSubjects[random() % kSubjects.size()]);
    text += ' ';
    add(kVerbs[random() % kVerbs.size()]);
    text += ' ';
    add(kObjects[random() % kObjects.size()]);
    const std::string_view link = kLinks[random() % kLinks.size()];
    text += link;
    starts = link[0] == '.';
  }
  return text;
}

}  // namespace bough::test
