#pragma once

#include "cli.h"

namespace bough::cli {

void add_eval_mass(CLI::App& eval, Action& action);

}  // namespace bough::cli
