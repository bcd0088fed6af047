// A strict reader of small JSON objects: every key known and given once, every value of the right type and in range, every error one
// sentence with the path of the value.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attention/plan_parts.h"
#include "base/check.h"
#include "bough/status.h"

namespace bough::plan {

using Json = nlohmann::json;

inline constexpr size_t kMaxJsonBytes = size_t{64} * 1024;

inline Status invalid(std::string message) { return {Code::invalid_argument, std::move(message)}; }

// Text of unknown origin, quoted, escaped to printable ASCII and shortened, for a message.
std::string quote(std::string_view text);

// A value for a message: structured ones by their type only.
std::string text_of(const Json& value);

Status check_type(const Json& value, Json::value_t type, const std::string& field);

// Parses `text`; refuses nesting deeper than 16 and a key that appears twice in one object. Throws Json::exception for numbers that
// JSON cannot hold, and std::bad_alloc.
Status parse_strict(std::string_view text, Json& out);

Status read_int64(const Json& value, const std::string& field, int64_t low, int64_t high, int64_t* out);

template <typename T>
Status read_integer(const Json& value, const std::string& field, int64_t low, int64_t high, T* out) {
  int64_t x = 0;
  BOUGH_RETURN_IF_ERROR(read_int64(value, field, low, high, &x));
  *out = static_cast<T>(x);
  return {};
}

Status read_index(const Json& value, const std::string& field, std::span<const std::string_view> names, size_t* out);

template <typename T>
Status read_name(const Json& value, const std::string& field, std::span<const std::string_view> names, T* out) {
  size_t i = 0;
  BOUGH_RETURN_IF_ERROR(read_index(value, field, names, &i));
  *out = static_cast<T>(i);
  return {};
}

// An array of at most `most` integers.
Status read_integers(const Json& value, const std::string& field, int64_t low, int64_t high, size_t most, std::vector<int>& out);

// One key of an object T: its name and what reads its value. `path` names the value in messages.
template <typename T>
struct Field {
  std::string_view name;
  Status (*read)(const Json& value, const std::string& path, T& out);
};

Status unknown_key(const std::string& key, const std::string& prefix, std::span<const std::string_view> known);

// prefix: the path of the object with a dot, empty for the plan itself.
template <typename T, size_t n>
Status read_fields(const Json& object, const std::array<Field<T>, n>& fields, const std::string& prefix, T& out) {
  for (const auto& [key, value] : object.items()) {
    const Field<T>* field = nullptr;
    for (const Field<T>& known : fields) {
      if (known.name == key) field = &known;
    }
    if (field == nullptr) {
      std::array<std::string_view, n> names;
      for (size_t i = 0; i < n; ++i) names[i] = fields[i].name;
      return unknown_key(key, prefix, names);
    }
    BOUGH_RETURN_IF_ERROR(field->read(value, prefix + key, out));
  }
  return {};
}

}  // namespace bough::plan
