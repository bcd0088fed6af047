#include "log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace bough::cli {

void start_log(bool verbose) {
  auto logger = std::make_shared<spdlog::logger>("bough", std::make_shared<spdlog::sinks::stderr_sink_st>());
  logger->set_pattern("bough: [%l] %v");
  logger->set_level(verbose ? spdlog::level::info : spdlog::level::off);
  spdlog::set_default_logger(std::move(logger));
}

void log_info(const std::string& sentence) { spdlog::default_logger_raw()->log(spdlog::level::info, spdlog::string_view_t(sentence)); }

void log_engine(const Engine& engine, const std::string& path) {
  const ModelInfo& info = engine.info();
  log_info("model " + path + ": " + info.name + ", " + info.architecture + ", weights " + info.weight_types);
  log_info("attention body " + engine.cpu_body() + ", threads " + std::to_string(engine.threads()) + ", KV " + name_of(engine.kv_type()));
  log_info("plan " + plan_json(engine.plan()));
  if (!engine.plan_note().empty()) log_info("plan: " + engine.plan_note());
}

}  // namespace bough::cli
