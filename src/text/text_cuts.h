// Where a long text may be cut so that its pieces, tokenized one by one, give the tokens of the whole.
//
// Byte-pair tokenizers first split the text into words by a regular expression. A cut is safe where every such expression ends a word
// whatever follows, and starts one whatever precedes. Two places are, unless the vocabulary says otherwise:
//   blank: a Latin letter | one space, a Latin letter     (a word takes at most one space, and only in front)
//   line:  a visible character, one line feed | a letter, digit or ideograph   (no word goes on after a single line feed)
#pragma once

#include <cstddef>
#include <string_view>

namespace bough {

struct CutRules {
  bool at_blank = false;
  bool at_line = false;
};

// Bytes of the first piece: all of `text` if it has at most `limit` bytes, else up to the last safe cut within `limit`. Where there
// is none (64 KiB of one word, say) the cut is forced between two characters: then a token or two there may differ.
// REQUIRES: text is UTF-8, limit >= 8.
size_t first_piece(std::string_view text, size_t limit, const CutRules& rules);

// Takes back the rules that a special token breaks: one whose text reaches across such a cut, or that strips blanks beside it.
void exclude_special(CutRules& rules, std::string_view special, bool strips);

}  // namespace bough
