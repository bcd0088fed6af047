// Names and words that the quality tasks make their sentences of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bough::eval {

// First names, all different, none the beginning of another.
std::span<const std::string_view> first_names();

// Compounds of an adjective and a noun, "quiet-harbor": no one is a part of another.
int64_t word_pairs();
// REQUIRES: 0 <= index < word_pairs().
std::string word_pair(int64_t index);

// Compounds of two adjectives and a noun, for where pairs are too few: no one is a part of another.
int64_t word_triples();
// REQUIRES: 0 <= index < word_triples().
std::string word_triple(int64_t index);

}  // namespace bough::eval
