#include "model/config_reader.h"

#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "model/errors.h"

namespace bough {

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

Status ConfigReader::read(std::string_view name, uint64_t least, uint64_t most, std::optional<uint64_t> fallback, uint64_t& value) const {
  if (!has(name) && fallback) {
    value = *fallback;
    return {};
  }
  Result<uint64_t> found = file_.get_u64(key(name));
  if (!found.ok()) return corrupt(found.status().message());
  value = *found;
  if (value >= least && value <= most) return {};
  return corrupt("the key " + in_quotes(key(name)) + " is " + std::to_string(value) + ", it must be from " + std::to_string(least) +
                 " to " + std::to_string(most));
}

Status ConfigReader::read(std::string_view name, uint64_t most, int& value) const {
  uint64_t wide = 0;
  BOUGH_RETURN_IF_ERROR(read(name, 1, most, std::nullopt, wide));
  value = static_cast<int>(wide);
  return {};
}

Status ConfigReader::read_positive(std::string_view name, double most, std::optional<double> fallback, double& value) const {
  if (!has(name) && fallback) {
    value = *fallback;
    return {};
  }
  Result<double> found = file_.get_f64(key(name));
  if (!found.ok()) return corrupt(found.status().message());
  value = *found;
  if (std::isfinite(value) && value > 0 && value <= most) return {};
  return corrupt("the key " + in_quotes(key(name)) + " is " + number_text(value) + ", it must be above 0 and at most " + number_text(most));
}

Status ConfigReader::read_or_zero(std::string_view name, double most, float& value) const {
  value = 0;
  if (!has(name)) return {};
  Result<double> found = file_.get_f64(key(name));
  if (!found.ok()) return corrupt(found.status().message());
  if (*found >= 0 && *found <= most) {
    value = static_cast<float>(*found);
    return {};
  }
  return corrupt("the key " + in_quotes(key(name)) + " is " + number_text(*found) + ", it must be from 0 to " + number_text(most));
}

Status ConfigReader::read_text(std::string_view name, std::string_view fallback, std::string_view& value) const {
  value = fallback;
  if (!has(name)) return {};
  Result<std::string_view> found = file_.get_string(key(name));
  if (!found.ok()) return corrupt(found.status().message());
  value = *found;
  return {};
}

}  // namespace bough
