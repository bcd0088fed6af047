// The cases that the tests of PagedAttention run over.
#pragma once

#include <vector>

#include "cuda/paged_case.h"

namespace bough::test {

// Every value of every choice several times, in balanced random company: types, head dims, groups, pages, layouts, plans, scans, pools,
// lists, tails and what a layer may ask for besides. Texts of odd lengths, among them one token, no query rows and no token at all.
std::vector<PagedSpec> grid();

// Each about one thing: plans that stages, single rows or positions make hard.
std::vector<PagedSpec> specials();

// Plans under whose positions the keys before the window move with the query block.
std::vector<PagedSpec> moving_positions();

// Those of these cases that may have a summary of keys, each with one of the widest step that it may have, half or a quarter of it.
std::vector<PagedSpec> with_summaries(const std::vector<PagedSpec>& specs);

// Plans whose stages score pieces of chunks, means and single keys, over types, shapes and scans.
std::vector<PagedSpec> pieces();

// Plans of mode hip.
std::vector<PagedSpec> trees();

// Few, for what does not depend on every choice: bits in any company.
std::vector<PagedSpec> samples();

// Texts that decode: long, about to outgrow what is seen whole, shorter than the sinks, a single token.
std::vector<PagedSpec> decode_grid();

// A tiny text and plan, for memory checkers.
PagedSpec small_spec(ElementType q, ElementType kv, int page_tokens);

}  // namespace bough::test
