// Configurations read from tiny model files, for tests.
#pragma once

#include <string>

#include "model/config.h"
#include "support/tiny_gguf.h"

namespace bough::test {

// What read_config gives: its error, or the configuration.
struct ReadConfig {
  Status status;
  ModelConfig config;
};
ReadConfig read(const GgufBuilder& builder);

GgufBuilder tiny(const TinyModel& spec = {});

// Fails the test unless read_config refuses the file with `code` and a message that holds `part`.
void expect_refused(const GgufBuilder& builder, Code code, const std::string& part);

// The same for the file of `spec` with one key set.
template <typename T>
void expect_refused(const TinyModel& spec, const std::string& key, const T& value, Code code, const std::string& part) {
  GgufBuilder builder = tiny(spec);
  builder.set(key, value);
  expect_refused(builder, code, part);
}

}  // namespace bough::test
