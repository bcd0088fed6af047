// bough bench --what cost: what plans cost as a text grows, counted.
#pragma once

#include <string>
#include <vector>

#include "cli.h"

namespace bough::cli {

// A row for each plan and length; `lengths` empty: 4,096 to 1,048,576, doubled. One JSON object a row, or a table.
Status bench_cost(const ModelOptions& model, const std::vector<std::string>& plans, std::vector<int64_t> lengths, bool json);

}  // namespace bough::cli
