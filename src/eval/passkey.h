// The passkey task: five digits hidden in a long text, asked for at its end. Raw prompt, no chat template.
//
// A prompt is introduction + haystack with the needle after a full stop + question; the answer's digits are fed as decode rows. A trial
// is exact when each of them was the model's first choice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/prompt.h"

namespace bough::eval {

// Five digits, the first of them not 0; a function of seed and trial only.
std::string passkey_of(uint64_t seed, int trial);

// The prompts of a band, text and question together exactly set.length tokens. Errors: invalid_argument (prompt too short, corpus too
// short).
Result<std::vector<Prompt>> passkey_prompts(const Engine& engine, const Corpus& corpus, const TrialSet& set);

}  // namespace bough::eval
