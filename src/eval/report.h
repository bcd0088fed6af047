// One result of a quality task (a cell), as a line of JSON and as a table.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough::eval {

struct Cell {
  std::string task;             // "passkey", "keys-32", "ruler-single-1", ...
  std::string plan;             // a preset's name, or the plan as one line of JSON
  std::string text;             // name of the corpus, or of what the task makes its texts of
  int64_t length = 0;           // tokens of each prompt or text
  std::optional<double> depth;  // middle of the cell's band of depths, 0..1; none: the whole text
  int trials = 0;               // prompts, or texts, averaged over

  // Figures; none where the task has no such figure.
  std::optional<double> exact;           // share of trials that were right in full, 0..1
  std::optional<double> score;           // share of what was asked for that was right, 0..1
  std::optional<double> cross_entropy;   // nats per scored token
  std::optional<double> sources;         // share of trials with the right passage among the first three sources, 0..1
  std::optional<double> relative_error;  // L2, of logits against dense attention's
  std::optional<double> divergence;      // Kullback-Leibler, nats, from dense attention's distribution
  int64_t tokens = 0;                    // tokens read and decoded for the cell
  double seconds = 0;                    // in which they were

  // Settings: what else decides the figures.
  std::string model;
  std::string kv;
  uint64_t seed = 0;
  int depths = 1;  // bands that the text is divided into
  bool one_haystack = false;
  bool chat = false;
  int64_t rows = 0;  // last rows of a text or band that are scored; 0: the task has no such number
  std::string text_checksum;
};

// The middle of band `band` of `depths`; none when there is one band.
std::optional<double> band_depth(int band, int depths);

// Two cells with equal keys measure the same thing: task, plan, text, length and depth.
std::string cell_key(const Cell& cell);

// Why `held`, a finished cell, and `asked` cannot stand in one file of results: a file has one model, one KV type and one text of
// a name, a task has one seed, and its cells of one text and length have the same settings. Empty when they can. Of a task that finds its
// number of trials itself, asked.trials is 0.
std::string settings_conflict(const Cell& held, const Cell& asked);

// One line without a newline.
std::string cell_json(const Cell& cell);
// Errors: corrupt, with the reason.
Result<Cell> parse_cell(std::string_view line);

// Aligned lines with a header, each ending in a newline.
std::string cell_table_header();
std::string cell_table_row(const Cell& cell);

// Plans side by side: a line for each task, text, length and depth, a column for each plan, in the order in which they come first. A
// figure is the error where there is one, else the score, else the perplexity.
std::string comparison_table(std::span<const Cell> cells);

}  // namespace bough::eval
