// A prompt of a quality task, and which ones a cell has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bough/types.h"

namespace bough::eval {

// The trials of one cell: those of a band of depths. All bands together have `depths` x `trials` of them, numbered from the shallowest to
// the deepest.
struct TrialSet {
  int64_t length = 0;  // tokens of a whole prompt, with the room for a greedy answer
  int trials = 10;     // of this band
  int depths = 1;
  int band = 0;
  uint64_t seed = 0;
  bool one_haystack = false;  // every trial's text starts at the corpus' first token

  int all() const { return depths * trials; }
  int first() const { return band * trials; }
  // Where the trial's needle goes, 0..1 of the haystack.
  double depth(int trial) const { return (trial + 0.5) / all(); }
};

struct Prompt {
  int trial = 0;                  // of all bands
  int round = 0;                  // prompts of one round share texts, which are read once when they run one after the other
  std::vector<TokenId> text;      // introduction and haystack with the needles
  std::vector<TokenId> question;  // read with the prompt's tail lists on
  // What is right, one of the two: tokens that are fed as decode rows, or strings that the greedy answer should hold.
  std::vector<TokenId> answer;
  std::vector<std::string> expected;
  int64_t answer_room = 0;    // most tokens of the greedy answer
  std::string key;            // what is asked for, as a log names it
  int64_t needle = 0;         // first token of the passage that has the answer, in `text`
  int64_t needle_tokens = 0;  // 0: there is no single one
};

}  // namespace bough::eval
