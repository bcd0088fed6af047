// One result of a quality task (a cell), as a line of JSON and as a table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough::eval {

struct Cell {
  std::string task;               // "passkey" or "ppl"
  std::string plan;               // a preset's name, or the plan as one line of JSON
  int64_t length = 0;             // tokens of each prompt or text
  std::string text;               // name of the corpus
  int trials = 0;                 // prompts, or texts, averaged over
  std::optional<double> exact;    // share of trials with every answer token right, 0..1; none for ppl
  std::optional<double> digits;   // share of answer tokens right, 0..1; none for ppl
  std::optional<double> sources;  // share of trials with the right passage among the first three sources, 0..1; none for ppl
  double cross_entropy = 0;       // nats per scored token
  int64_t tokens = 0;             // tokens read and decoded for the cell
  double seconds = 0;             // in which they were
  // What else decides the figures, so that a finished cell is recognised.
  std::string model;
  std::string kv;
  uint64_t seed = 0;
  bool one_haystack = false;
};

// Two cells with equal keys measure the same thing.
std::string cell_key(const Cell& cell);

// One line without a newline.
std::string cell_json(const Cell& cell);
// Errors: corrupt, with the reason.
Result<Cell> parse_cell(std::string_view line);

// Aligned lines with a header, each ending in a newline.
std::string cell_table_header();
std::string cell_table_row(const Cell& cell);

}  // namespace bough::eval
