// Results of run_mass under several plans: as lines of JSON and side by side in a table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "eval/mass.h"

namespace bough::eval {

struct MassRecord {
  std::string plan;  // a preset's name, or the plan as one line of JSON
  std::string model;
  std::string text;  // name of the corpus
  int64_t length = 0;
  MassReport report;
};

// One line without a newline.
std::string mass_json(const MassRecord& record);
// Errors: corrupt, with the reason.
Result<MassRecord> parse_mass(std::string_view line);

// Aligned lines, each ending in a newline: plans that select in the same layer below one another; with `heads` a line for each head
// too. A plan whose name is no short word is numbered, and a line before the table says which it is.
std::string mass_table(std::span<const MassRecord> records, bool heads);

}  // namespace bough::eval
