// Named keys: many names with a key each, spread over a long text; one of them is asked for at its end. Raw prompt, no chat template.
//
// Scored as the passkey task is: the digits are fed as decode rows.
#pragma once

#include <cstdint>
#include <vector>

#include "bough/engine.h"
#include "eval/corpus.h"
#include "eval/prompt.h"

namespace bough::eval {

// The prompts of a band with `keys` named keys each, 1 to 128. Trial i asks for the name at depth (i + 0.5) / all trials
// among them. In one haystack trials that ask for different names share one text. Errors: invalid_argument (`keys` out of range, prompt
// too short, corpus too short).
Result<std::vector<Prompt>> keys_prompts(const Engine& engine, const Corpus& corpus, const TrialSet& set, int keys);

}  // namespace bough::eval
