// The --verbose log, on stderr.
#pragma once

#include <string>

#include "bough/engine.h"

namespace bough::cli {

void start_log(bool verbose);
void log_info(const std::string& sentence);
// Model, body, threads, KV type and plan.
void log_engine(const Engine& engine, const std::string& path);

}  // namespace bough::cli
